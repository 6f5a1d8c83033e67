"""The content of an undecoded image and its hash, which is the same in every row and every data set."""

import hashlib
from typing import Any

import numpy as np

from ..files import bytes_or_path


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
