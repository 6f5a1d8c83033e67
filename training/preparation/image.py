"""One image made small: the file as it was where that is good enough, a new JPEG file otherwise."""

from typing import Any, NamedTuple

import cv2
import numpy as np

from ..data.content import content_key
from ..errors import BadImageError
from ..images.decode import OpenedImage, decode_image, open_image, stored_values
from ..images.value_range import ValueRange
from ..loading.encoded import encoded_bytes

# A JPEG of so few pixels loses detail that a network sees, and is decoded no faster than the original.
_TINY = 128 * 128


class PreparedImage(NamedTuple):
    """An image as it is written.

    Attributes:
        data: Encoded bytes.
        key: Hash of the source's encoded bytes; equal for duplicates.
        source_bytes: Size of the source's encoded bytes.
        kept: Whether `data` are the source's bytes.
    """

    data: bytes
    key: bytes
    source_bytes: int
    kept: bool


def prepare_image(image: Any, short_side: int, quality: int, value_range: ValueRange | None = None) -> PreparedImage:
    """Decode an image as training does, and encode it again if it is large, turned, or no JPEG.

    A new file shows what training would see: EXIF orientation is applied, transparency is blended onto white, and 16
    bits become 8 (see `decode_image`). It holds no metadata, so it does not say where a photograph was taken. A file
    stays as it was if its shorter side has at most `short_side` pixels, it need not be turned, and it is a JPEG, or of
    any format if it has at most 128 x 128 pixels. It is decoded all the same: a damaged one is not written.

    Args:
        image: Undecoded: encoded bytes, a path, or {"bytes", "path"}.
        short_side: Most pixels of the shorter side. Smaller images are not enlarged.
        quality: JPEG quality, 1 to 100.
        value_range: The stored values that become black and white, in images of more than 8 bits.

    Raises:
        BadImageError: the image cannot be read.
    """
    data = encoded_bytes(image)
    key = content_key(data)
    opened = open_image(data)
    pixels = decode_image(data, min_size=short_side, value_range=value_range)
    deep = value_range is not None and stored_values(data) is not None
    kept = _is_good_enough(opened, short_side) and not deep
    written = data if kept else _encode(_shrink(pixels, opened, short_side), quality)
    return PreparedImage(written, key, len(data), kept)


def _is_good_enough(opened: OpenedImage, short_side: int) -> bool:
    small = min(opened.width, opened.height) <= short_side and opened.orientation == 1
    # Only standard JPEG files can be decoded at a reduced size.
    return small and (bool(opened.reductions) or opened.width * opened.height <= _TINY)


def _shrink(pixels: np.ndarray, opened: OpenedImage, short_side: int) -> np.ndarray:
    """Resize so that the shorter side has `short_side` pixels; sides are rounded from those of the whole image."""
    shorter = min(opened.width, opened.height)
    if shorter <= short_side:
        return pixels
    size = tuple(max(short_side, round(side * short_side / shorter)) for side in (opened.width, opened.height))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done or max(pixels.shape[:2]) > 65500:  # the format's limit, libjpeg's JPEG_MAX_DIMENSION
        raise BadImageError(f"{pixels.shape[1]} x {pixels.shape[0]} cannot be written as JPEG")
    return bytes(encoded.data)
