"""Read a JPEG file's header: size, channels, orientation, and whether the file is complete.

This takes a few microseconds. With it, a crop can be chosen before decoding, and the image can be decoded at a reduced
scale and only down to the last row of the crop. Decompression bombs and truncated files are refused without decoding.
"""

import struct
from typing import NamedTuple

# Start-of-frame markers (ITU T.81 table B.1). Only the first three are decoded by OpenCV's libjpeg-turbo.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDARD_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_PROGRESSIVE = 0xC2
_START_OF_SCAN = 0xDA
_RESTART_INTERVAL = 0xDD
_END_OF_IMAGE = b"\xff\xd9"
_EXIF = b"Exif\x00\x00"
_SEVERAL_PICTURES = b"MPF\x00"
_ORIENTATION_TAG = 0x0112
_SHORT = 3


class JpegHeader(NamedTuple):
    """The frame header of a JPEG file.

    Attributes:
        width: Columns as stored, before any EXIF rotation.
        height: Rows as stored.
        components: 1 (grey), 3 (colour) or 4 (CMYK, YCCK).
        orientation: EXIF orientation, 1 to 8; 1 if it is missing or invalid.
        standard: Whether the coding is baseline, extended or progressive Huffman with 8 bits; all decoders agree on it.
        progressive: Whether the image is stored in several scans.
        scan_offset: Byte offset of the first scan.
        frame_offset: Byte offset of the frame header.
        block_rows: Number of rows that are coded together, if all rows are stored in order, in a single scan without
            restart markers; otherwise 0.
    """

    width: int
    height: int
    components: int
    orientation: int
    standard: bool
    progressive: bool
    scan_offset: int
    frame_offset: int
    block_rows: int


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the markers up to the first scan.

    Returns:
        The header, or None if this is not a JPEG file or its markers are damaged.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    frame, orientation, in_order, offset, end = None, 1, True, 2, len(data)
    while offset + 4 <= end:
        if data[offset] != 0xFF:
            return None
        marker = data[offset + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            offset += 1
            continue
        length = (data[offset + 2] << 8) | data[offset + 3]
        if length < 2:
            return None
        if marker == _START_OF_SCAN:
            if frame is None:
                return None
            width, height, components, standard, progressive, frame_offset = frame
            in_order = in_order and not progressive and data[offset + 4 : offset + 5] == bytes((components,))
            rows = 8 * _vertical_sampling(data, frame_offset, components) if in_order else 0
            return JpegHeader(width, height, components, orientation, standard, progressive, offset, frame_offset, rows)
        if marker in _FRAMES and length >= 8 and offset + 10 <= end:
            precision, height, width, components = struct.unpack_from(">BHHB", data, offset + 4)
            standard = marker in _STANDARD_FRAMES and precision == 8 and width > 0 and height > 0
            frame = (width, height, components, standard, marker == _PROGRESSIVE, offset)
        elif marker == _RESTART_INTERVAL or (marker == 0xE2 and data[offset + 4 : offset + 8] == _SEVERAL_PICTURES):
            in_order = False
        elif marker == 0xE1 and data[offset + 4 : offset + 10] == _EXIF:
            orientation = _exif_orientation(data[offset + 10 : offset + 2 + length])
        offset += 2 + length
    return None


def is_complete(data: bytes, header: JpegHeader) -> bool:
    """Return whether an end-of-image marker follows the first scan.

    Encoded pixels cannot contain the marker, because 0xFF is always followed by 0x00 or a restart marker there. The
    search starts at the scan header, so the end of an embedded thumbnail is not mistaken for the end of the image.
    Bytes after the marker are allowed.
    """
    return data.rfind(_END_OF_IMAGE, header.scan_offset) >= 0


def top_rows(data: bytes, header: JpegHeader, rows: int) -> bytearray | None:
    """Shorten a file to its first rows by declaring a smaller height, so that a decoder stops early.

    The decoded rows are the same as those of the full file. The end-of-image marker is removed: a decoder that searches
    for it after the last declared row would meet the remaining rows and report an error. The last block of rows cannot
    be skipped alone, because a decoder reads to the end of the file there.

    Args:
        data: A complete file with standard coding.
        header: Its header.
        rows: Number of stored rows that are needed.

    Returns:
        The shortened file, or None if no row can be skipped.
    """
    if not header.block_rows or data[-2:] != _END_OF_IMAGE:
        return None
    # Upsampling colours that are stored at half the size needs two more rows.
    height = -(-(rows + 2) // header.block_rows) * header.block_rows
    if height > header.height - header.block_rows:
        return None
    part = bytearray(data)
    del part[-2:]
    struct.pack_into(">H", part, header.frame_offset + 5, height)
    return part


def count_scans(data: bytes, header: JpegHeader) -> int:
    """Count the scans of a progressive file. Each scan costs a pass over all coefficients."""
    return data.count(bytes((0xFF, _START_OF_SCAN)), header.scan_offset)


def _vertical_sampling(data: bytes, frame_offset: int, components: int) -> int:
    """Return the largest vertical sampling factor of all components; 4, the maximum, if the header is truncated."""
    factors = data[frame_offset + 11 : frame_offset + 10 + 3 * components : 3]
    return max((factor & 15 for factor in factors), default=4) or 4


def _exif_orientation(tiff: bytes) -> int:
    """Read the EXIF orientation from the TIFF structure of an APP1 segment; 1 if it is missing or damaged."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
