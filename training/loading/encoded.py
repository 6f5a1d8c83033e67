"""The encoded bytes of an undecoded image, wherever they are."""

import os
from pathlib import Path
from typing import Any

from ..errors import BadImageError
from ..files import bytes_or_path
from ..images.decode import read_image_file
from .chunks import fetch_remote


def encoded_bytes(image: Any) -> bytes:
    """Read the encoded bytes of an undecoded image, from memory, a file, or the address of a remote one.

    Args:
        image: Encoded bytes, a path, an address, or {"bytes", "path"}.

    Raises:
        BadImageError: there is neither, or the file cannot be read.
    """
    image = bytes_or_path(fetch_remote(image))
    if image is None:
        raise BadImageError("neither bytes nor a path")
    return read_image_file(Path(image)) if isinstance(image, (str, os.PathLike)) else bytes(image)
