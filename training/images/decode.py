"""Open and decode images of any format as 8-bit RGB, as an image viewer shows them.

Every damaged or unsupported file raises a `BadImageError`. JPEG files are decoded by OpenCV (libjpeg-turbo, directly
from the encoded bytes, at a reduced scale if that is enough); all other formats are decoded by Pillow.
"""

import contextlib
import io
import os
import stat
import threading
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import BadImageError
from ..files import UNTRUSTED, bytes_or_path
from .jpeg_header import JpegHeader, count_scans, is_complete, read_jpeg_header, top_rows
from .orientation import orient, turns_sides
from .pixel_modes import array_to_rgb, pil_to_rgb, wide_to_rgb
from .tiff_header import read_tiff_header, split_orientation
from .value_range import StoredValues, ValueRange, values_of

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels (300 MB as RGB). Larger images are refused as decompression bombs."""

REDUCTIONS = (8, 4, 2)
"""libjpeg decodes directly at 1/8, 1/4 and 1/2 of the size; the strongest reduction is first."""

_MAX_SCANS = 100  # libjpeg-turbo's advice against progressive files made to burn time; encoders write about ten
_REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Pillow would start Ghostscript for EPS, and knows formats that no data set uses: only these are tried.
_PIL_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX")
_PIL_ORIENTATION = 0x0112
_BEGINNINGS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG\r\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"BM": "BMP",
    **{b"P%c" % letter: "PPM" for letter in b"1234567fFyY"},
}


class OpenedImage:
    """An image whose size is known and whose pixels are not decoded yet.

    Attributes:
        width: Columns of the image as shown (EXIF rotation applied).
        height: Rows of the image as shown.
        orientation: EXIF orientation still to be applied to `stored_pixels` (1: none).
        reductions: Factors r above 1 for which the image can be decoded at 1/r of its size, largest first.
    """

    __slots__ = ("_header", "_source", "_value_range", "height", "orientation", "reductions", "width")

    def __init__(
        self,
        source: Any,
        width: int,
        height: int,
        orientation: int = 1,
        header: JpegHeader | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        self._source, self._header, self._value_range = source, header, value_range
        self.width, self.height = width, height
        self.orientation = orientation
        self.reductions = REDUCTIONS if header is not None else ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the EXIF rotation."""
        return (self.height, self.width) if turns_sides(self.orientation) else (self.width, self.height)

    def stored_pixels(self, reduction: int = 1, rows: int | None = None) -> np.ndarray:
        """Decode the image as stored, before the EXIF rotation.

        Args:
            reduction: 1, or one of `reductions`. Each decoded pixel then covers reduction x reduction stored pixels;
                in the last row and column it may cover fewer.
            rows: Number of stored rows (at full size) that are needed, counted from the top. Rows below may be missing
                from the result.

        Returns:
            uint8 (rows, columns, 3), RGB.

        Raises:
            BadImageError: the pixels are damaged or truncated.
        """
        if isinstance(self._source, np.ndarray):
            return self._source
        if isinstance(self._source, Image.Image):
            return _load_pil(self._source, self._value_range)
        part = None if rows is None or self._header is None else top_rows(self._source, self._header, rows)
        pixels = None if part is None else _decode_jpeg(part, reduction)
        if pixels is None:
            pixels = _decode_jpeg(self._source, reduction)
        if pixels is None:
            raise BadImageError("a damaged JPEG")
        return pixels


def open_image(image: Any, max_pixels: int = MAX_PIXELS, value_range: ValueRange | None = None) -> OpenedImage:
    """Read the size and orientation of an image, without decoding its pixels if the format allows that.

    Args:
        image: Encoded bytes; a path; a PIL image; a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; or
            a `datasets` dictionary with "bytes" or "path".
        max_pixels: Images with more pixels are refused before they are decoded.
        value_range: The stored values that become black and white, in images of more than 8 bits; None takes the range
            of their type (see `pixel_modes.pil_to_rgb`).

    Raises:
        BadImageError: the image cannot be opened; the message is the reason, in one line.
    """
    image = bytes_or_path(image)
    if image is None:
        raise BadImageError("neither bytes nor a path")
    if isinstance(image, np.ndarray):
        try:
            pixels = array_to_rgb(image)
        except ValueError as error:
            raise BadImageError(str(error)) from None
        _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
        return OpenedImage(pixels, pixels.shape[1], pixels.shape[0])
    if isinstance(image, Image.Image):
        return _open_pil(image, max_pixels, value_range)
    if isinstance(image, (str, os.PathLike)):
        image = read_image_file(Path(image))
    if isinstance(image, (bytearray, memoryview)):
        image = bytes(image)
    if not isinstance(image, bytes):
        raise BadImageError(f"not an image: {type(image).__name__}")
    return _open_bytes(image, max_pixels, value_range)


def decode_image(
    image: Any,
    *,
    min_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> np.ndarray:
    """Decode an image to RGB, as an image viewer shows it.

    EXIF rotation is applied, grey is repeated into three channels, transparency is blended onto white, CMYK (including
    Adobe's inverted variant) is converted, 16 bits are scaled to 8, and only the first frame of an animation is used.

    Args:
        image: Encoded bytes, a path, a PIL image, a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA,
            or a `datasets` dictionary with "bytes" or "path".
        min_size: If given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its shorter side keeps at
            least this many pixels.
        max_pixels: Images with more pixels are refused before they are decoded.
        value_range: The stored values that become black and white, in images of more than 8 bits; None takes the range
            of their type (see `pixel_modes.pil_to_rgb`).

    Returns:
        uint8 array (height, width, 3), contiguous.

    Raises:
        BadImageError: the image cannot be decoded; the message is the reason, in one line.
    """
    opened = open_image(image, max_pixels, value_range)
    reduction = 1
    if min_size is not None:
        shorter = min(opened.width, opened.height)
        reduction = next((r for r in opened.reductions if shorter // r >= min_size), 1)
    return np.ascontiguousarray(orient(opened.stored_pixels(reduction), opened.orientation))


def check_trusted(path: str | Path) -> None:
    """Raise a BadImageError if a path in a data set leads outside of it, which its mark says."""
    if str(path).startswith(UNTRUSTED):
        raise BadImageError("names a file or address outside of the data set; --trust_paths true follows it")


def read_image_file(path: Path) -> bytes:
    """Read the bytes of a file.

    Raises:
        BadImageError: the file is missing, cannot be read, is not a regular file (reading a pipe would hang), or is
            outside of its data set.
    """
    check_trusted(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadImageError("a directory, not a file")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device would hang
            raise BadImageError("not a regular file")
        if status.st_size == 0:  # files below /proc have no size, and some wait for ever
            raise BadImageError("empty: 0 bytes")
        return path.read_bytes()
    except FileNotFoundError:
        reason = "a broken symbolic link" if path.is_symlink() else "no such file"
        raise BadImageError(reason) from None
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, BadImageError):
            raise
        raise BadImageError(f"not a path: {error}") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadImageError(f"no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise BadImageError(f"{width} x {height} is more than {max_pixels} pixels")


def stored_values(data: bytes) -> StoredValues | None:
    """The stored values of an image of more than 8 bits; None if it has 8 bits or fewer.

    Args:
        data: The encoded image; one that `decode_image` reads.
    """
    deep = _deep_colour(data)
    if deep is not None:
        return values_of(deep)
    with _quiet(), Image.open(io.BytesIO(data), formats=_PIL_FORMATS) as image:
        if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
            return None
        return values_of(np.asarray(image))


def _deep_colour(data: bytes) -> np.ndarray | None:
    """The stored values of a colour PNG or TIFF of 16 bits, uint16 (H, W, 3), which Pillow cuts to 8 bits; else None.

    They are as stored: an orientation is not applied.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        plain = data
        if len(data) < 26 or data[24] != 16 or data[25] not in (2, 6):
            return None
    else:
        header = read_tiff_header(data)
        if header is None or (header.bits, header.kind) != (16, "unsigned integer") or header.samples not in (3, 4):
            return None
        _, plain = split_orientation(data)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(plain, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint16:
        return None
    return np.ascontiguousarray(pixels[..., ::-1])


def _open_bytes(data: bytes, max_pixels: int, value_range: ValueRange | None) -> OpenedImage:
    if not data:
        raise BadImageError("empty: 0 bytes")
    header = read_jpeg_header(data)
    if header is not None:
        _check_jpeg(data, header, max_pixels)
        if header.standard and header.components in (1, 3) and is_complete(data, header):
            sides = (header.width, header.height)
            width, height = sides[::-1] if turns_sides(header.orientation) else sides
            return OpenedImage(data, width, height, header.orientation, header)
    orientation, plain = split_orientation(data)
    try:
        with _quiet():
            opened = Image.open(io.BytesIO(plain), formats=_PIL_FORMATS)
    except Exception as error:  # Pillow's readers raise many kinds of exceptions for damaged files
        raise BadImageError(_reason(error, data)) from None
    shown = _open_pil(opened, max_pixels, value_range, orientation)
    deep = _deep_colour(plain) if value_range is not None and opened.format in ("PNG", "TIFF") else None
    if deep is None or value_range is None:
        return shown
    return OpenedImage(wide_to_rgb(deep, value_range), shown.width, shown.height, shown.orientation)


def _check_jpeg(data: bytes, header: JpegHeader, max_pixels: int) -> None:
    if header.width and header.height:
        _check_size(header.width, header.height, max_pixels)
    if header.progressive and count_scans(data, header) > _MAX_SCANS:
        raise BadImageError(f"a progressive JPEG of more than {_MAX_SCANS} scans")


def _open_pil(image: Image.Image, max_pixels: int, value_range: ValueRange | None, orientation: int = 1) -> OpenedImage:
    """An image of Pillow; `orientation` is that of the TIFF file from which it was taken."""
    _check_size(*image.size, max_pixels)
    try:
        with _quiet():
            tag = image.getexif().get(_PIL_ORIENTATION, 1)
    except Exception:  # damaged EXIF data is no reason to refuse the image
        tag = 1
    if image.format != "TIFF":
        orientation = tag
    elif tag != 1:  # loading turns it, and its size is that of the turned image
        try:
            with _quiet():
                image.load()
        except Exception as error:
            raise BadImageError(_reason(error, kind=image.format)) from None
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    width, height = image.size[::-1] if turns_sides(orientation) else image.size
    return OpenedImage(image, width, height, orientation, value_range=value_range)


def _load_pil(image: Image.Image, value_range: ValueRange | None) -> np.ndarray:
    try:
        with _quiet():
            image.load()
            return pil_to_rgb(image, value_range)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(error, kind=image.format)) from None


def _decode_jpeg(data: bytes | bytearray, reduction: int) -> np.ndarray | None:
    # OpenCV 5 refuses IMREAD_COLOR, which means BGR, together with IMREAD_COLOR_RGB.
    flags = (_REDUCED_FLAGS[reduction] & ~cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None


class _quiet:
    """Silence Pillow's warnings about unusual files, in the main thread only: warning filters are global."""

    def __enter__(self) -> None:
        self._silence = contextlib.ExitStack()
        if threading.current_thread() is threading.main_thread():
            self._silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")

    def __exit__(self, *exc: object) -> None:
        self._silence.close()


def _reason(error: Exception, data: bytes = b"", kind: str | None = None) -> str:
    """Describe an error in one line. Nothing of the file's content is quoted: it may be no image, but a secret."""
    if kind is None:
        kind = next((kind for start, kind in _BEGINNINGS.items() if data.startswith(start)), None)
    if kind == "PPM":  # Pillow's messages about this format, which is text, quote it
        return "a damaged PPM"
    if isinstance(error, Image.UnidentifiedImageError):
        header = read_tiff_header(data) if kind == "TIFF" else None
        if header is not None and header.complete:
            return (
                f"a TIFF of {header.samples} x {header.bits}-bit {header.kind} per pixel, a kind that is not "
                "supported; convert it to 8 or 16 bits, grey or RGB"
            )
        return "not an image" if kind is None else f"a damaged {kind}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
