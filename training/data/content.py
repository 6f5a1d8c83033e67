"""The content of an undecoded image and its hash, the same in every data set; what a data set is known again by."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import bytes_or_path

_MOST_READ = 1000  # files of which a part is read to know a data set again
_READ = 1 << 16


def content(image: Any) -> bytes:
    """The bytes that identify an undecoded image.

    Args:
        image: Encoded bytes, a path, {"bytes", "path"}, or an image as an array or a PIL image.

    Returns:
        Encoded bytes as they are; the text of a path, for no file is opened; the pixels of an array or a PIL image.
    """
    image = bytes_or_path(image)
    if isinstance(image, bytes):
        return image
    if hasattr(image, "__array_interface__"):
        return np.asarray(image).tobytes()
    return str(image).encode()


def content_key(image: Any) -> bytes:
    """16-byte hash of an undecoded image's content (see `content`)."""
    return hashlib.blake2b(content(image), digest_size=16).digest()


def describe_files(folder: Path, files: Sequence[str], most_listed: int) -> dict[str, Any]:
    """The names, sizes and, of up to 1,000 files, contents by which a data set is known again.

    Of a file that is read, the beginning and the end are hashed.

    Args:
        folder: The data set's folder.
        files: Its files, relative to the folder.
        most_listed: Of a data set with more files, the list itself is not returned.

    Returns:
        {"count", "bytes", "hash", "files": path -> [bytes, hash or None], or None}.
    """
    ordered = sorted(files)
    keys = sorted(ordered, key=lambda name: hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest())
    read = set(keys[:_MOST_READ])
    listed: dict[str, list[Any]] = {}
    for name in ordered:
        try:
            size = (folder / name).stat().st_size
            listed[name] = [size, _ends(folder / name, size) if name in read else None]
        except OSError:  # a broken link: an unreadable image, now as then
            listed[name] = [-1, None]
    text = "\n".join(f"{name}\0{size}\0{key}" for name, (size, key) in listed.items())
    return {
        "count": len(listed),
        "bytes": sum(max(0, size) for size, _ in listed.values()),
        "hash": hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest(),
        "files": listed if len(listed) <= most_listed else None,
    }


def _ends(path: Path, size: int) -> str | None:
    """Hash of the beginning and the end of a file; None for a folder or device, which is not read."""
    if not path.is_file() or size == 0:  # files below /proc have no size, and some wait for ever
        return None
    with path.open("rb") as file:
        data = file.read(_READ)
        if size > _READ:
            file.seek(max(_READ, size - _READ))
            data += file.read(_READ)
    return hashlib.blake2b(data, digest_size=8).hexdigest()
