"""Files that are either complete or absent (written beside their target, synced, renamed), and what is a path."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def looks_like_path(reference: str) -> bool:
    """Tell whether the name of a model or data set can only be a path on this machine, not a name on the Hub.

    A path starts with `.`, `/` or `~`, or has more than one slash. A name with one slash may be either.

    Args:
        reference: The name, without a revision.
    """
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def write_text(path: Path | str, text: str) -> None:
    """Replace a file by `text` (UTF-8) in one step, so that a reader or a crash never sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON; what JSON has no word for (paths, enums, tensors of one number) becomes text."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def folder_written_at_once(target: Path | str) -> Iterator[Path]:
    """Give a temporary folder whose files move to `target` when the block ends without an error.

    Files of `target` with other names stay. An error leaves `target` as it was, and not even an empty folder
    where there was none.

    Args:
        target: The folder that shall hold the files.

    Yields:
        A new, empty folder on the same file system.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            _sync(file)
            place = target / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the system write a file's bytes to disk before it is renamed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
