"""Files that are either complete or absent (written beside their target, synced, renamed), and what is a path."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PARTIAL_PREFIX = ".partial-"
"""Start of the names of files and folders that are being written. What a kill leaves of them is deleted later."""

# What file systems answer that lack an operation, as many network and FUSE file systems do.
_NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}

# Windows syncs only what is open for writing; POSIX opens no folder for that.
_SYNCED = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY

logger = logging.getLogger(__name__)

LONGEST_NAME = 150
"""Bytes of a file's name that come from the name of a model or data set."""

UNTRUSTED = "untrusted path:"
"""Mark before a path in a data set that leads outside of the data set; such a path is never opened."""


def looks_like_path(reference: str) -> bool:
    """Tell whether the name of a model or data set can only be a path on this machine, not a name on the Hub.

    A path starts with `.`, `/` or `~`, has more than one slash, or a backslash. A name with one slash may be either.

    Args:
        reference: The name, without a revision.
    """
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1 or "\\" in reference


def short_file_name(name: str) -> str:
    """Cut a part of a file's name to 150 bytes, the last of them a checksum of the whole; a shorter name stays.

    File systems refuse names over 255 bytes, and a name gets a start, an end and the mark of a file being written.
    """
    content = name.encode()
    if len(content) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(content).hexdigest()[:12]
    return f"{content[: LONGEST_NAME - 13].decode(errors='ignore')}-{mark}"


def same_name(name_or_path: str | os.PathLike[str]) -> str:
    """A name as it is compared: of something on this machine its absolute path, however it was spelt."""
    path = Path(os.path.expanduser(name_or_path))  # noqa: PTH111, a user that does not exist is no error here
    return str(path.resolve()) if path.exists() else os.fspath(name_or_path)


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk; where the file system cannot, say so once."""
    try:
        descriptor = os.open(path, _SYNCED)
    except PermissionError:
        if path.is_dir():  # a folder that may be written to but not listed, and any folder on Windows
            return
        raise
    try:
        fsync_open(descriptor, path)
    finally:
        os.close(descriptor)


def fsync_open(descriptor: int, path: Path) -> None:
    """As `fsync`, for a file that is open."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _warn_once("the file system of %s has no fsync: after a power cut the newest files may be missing", path.anchor)


def set_mode(path: Path, mode: int) -> None:
    """Set a file's permissions; where the file system has none, say so once."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _warn_once("the file system of %s does not set permissions: files keep those that it gives them", path.anchor)


@functools.cache
def _warn_once(message: str, place: str) -> None:
    logger.warning(message, place or ".")


def holds_something(folder: Path) -> bool:
    """Tell whether a folder has entries other than what a kill or a full disk left of files that were being written."""
    return any(not path.name.startswith(PARTIAL_PREFIX) for path in folder.iterdir())


def replace(source: Path, target: Path) -> None:
    """Move a file to another name in one step, also from another file system."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_bytes(target, source.read_bytes())
        source.unlink()


def remove(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder; it need not exist."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


@contextlib.contextmanager
def named_in_errors(path: Path | str) -> Iterator[None]:
    """Errors of the operating system in this block name what was to be written: that of a full disk names no file."""
    try:
        yield
    except OSError as error:
        # Without a number, the text says what happened, and a name would replace it.
        if error.errno is not None and (error.filename is None or PARTIAL_PREFIX in str(error.filename)):
            error.filename = os.fspath(path)
        raise


def write_bytes(path: Path | str, content: bytes) -> None:
    """Create or replace a file in one step, so that neither a reader nor a crash ever sees half of it.

    Args:
        path: The file. Missing folders are created.
        content: All of its bytes.
    """
    path = Path(path)
    with named_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{PARTIAL_PREFIX}{path.name[:100]}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            fsync(temporary)
            set_mode(temporary, 0o644)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path | str, text: str) -> None:
    """Create or replace a text file (UTF-8) in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON; values that JSON cannot hold (paths, enums) are written as text."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_record(path: Path | str, value: Any) -> None:
    """Write what a command was asked for and has found, as `write_json` does, without the secrets in it."""
    from ladder_model_cards.secrets import hide_in_values

    write_json(path, hide_in_values(value))


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object whose absence or damage is no fault; it is empty then."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def json_value(value: Any, rounded: Callable[[float], float]) -> Any:
    """Convert a value to what strict JSON can hold: lists, text, plain numbers, and None for NaN and infinity.

    Args:
        value: Anything; mappings and lists are converted entry by entry.
        rounded: Applied to every finite float.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(entry, rounded) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry, rounded) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return rounded(value) if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


@contextlib.contextmanager
def folder_written_at_once(target: Path | str) -> Iterator[Path]:
    """Collect files in a temporary folder, and move them to `target` when the block ends without an error.

    Files of `target` with other names stay. After an error `target` is as it was before; if it did not exist, it is
    not created.

    Args:
        target: The folder that gets the files.

    Yields:
        A new, empty folder on the same file system.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Inside a folder that exists, the next run in this folder finds and deletes what a kill leaves.
    inside, name = (target, "files") if target.is_dir() else (target.parent, target.name[:100])
    with named_in_errors(target):
        temporary = Path(tempfile.mkdtemp(prefix=f"{PARTIAL_PREFIX}{name}.", dir=inside))
        try:
            yield temporary
            for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
                fsync(file)
                set_mode(file, 0o644)  # safetensors makes files that only their owner can read
                destination = target / file.relative_to(temporary)
                destination.parent.mkdir(parents=True, exist_ok=True)
                replace(file, destination)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def bytes_or_path(image: Any) -> Any:
    """The encoded bytes or the path of an undecoded image.

    Args:
        image: Encoded bytes, a path, or {"bytes", "path"} as `datasets` stores it, where either may be None.

    Returns:
        Of such a dict the bytes if there are any, else the path, else None; anything else unchanged.
    """
    if not isinstance(image, Mapping):
        return image
    return image["bytes"] if image.get("bytes") is not None else image.get("path")
