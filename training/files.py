"""Files that are either complete or absent (written beside their target, synced, renamed), and what is a path."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def looks_like_path(reference: str) -> bool:
    """Tell whether the name of a model or data set can only be a path on this machine, not a name on the Hub.

    A path starts with `.`, `/` or `~`, or has more than one slash. A name with one slash may be either.

    Args:
        reference: The name, without a revision.
    """
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Create or replace a file in one step, so that neither a reader nor a crash ever sees half of it.

    Args:
        path: The file. Missing folders are created.
        content: All of its bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        fsync(Path(temporary))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Create or replace a text file (UTF-8) in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON; values that JSON cannot hold (paths, enums) are written as text."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


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
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            fsync(file)
            destination = target / file.relative_to(temporary)
            destination.parent.mkdir(parents=True, exist_ok=True)
            file.replace(destination)
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
