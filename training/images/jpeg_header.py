"""What a JPEG file says of itself before any pixel is decoded: size, channels, orientation, completeness.

Reading this in a few microseconds is what allows a crop to be chosen before decoding, decoding at a reduced scale and
only as far down as the crop reaches, and refusing a decompression bomb or a cut-off file without decoding it.
"""

import struct
from typing import NamedTuple

# Start-of-frame markers (ITU T.81 table B.1). OpenCV's libjpeg-turbo is trusted with the first three kinds only.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
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
        width: columns as stored, before any EXIF rotation.
        height: rows as stored.
        components: 1 (grey), 3 (colour) or 4 (CMYK, YCCK).
        orientation: EXIF orientation 1 ... 8; 1 where there is none or a wrong one.
        plain: baseline, extended or progressive Huffman coding with 8 bits, which every decoder reads alike.
        progressive: whether the picture comes in several scans.
        scan_offset: where the first scan starts in the file, in bytes.
        frame_offset: where the frame header starts.
        block_rows: rows that are coded together, if the rows follow each other in the file, in a single scan without
            restart markers; else 0.
    """

    width: int
    height: int
    components: int
    orientation: int
    plain: bool
    progressive: bool
    scan_offset: int
    frame_offset: int
    block_rows: int


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the markers up to the first scan.

    Returns:
        The header, or None if this is no JPEG file or its markers are damaged.
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
            width, height, components, plain, progressive, place = frame
            in_order = in_order and not progressive and data[offset + 4 : offset + 5] == bytes((components,))
            rows = 8 * _vertical_sampling(data, place, components) if in_order else 0
            return JpegHeader(width, height, components, orientation, plain, progressive, offset, place, rows)
        if marker in _FRAMES and length >= 8 and offset + 10 <= end:
            precision, height, width, components = struct.unpack_from(">BHHB", data, offset + 4)
            plain = marker in _PLAIN_FRAMES and precision == 8 and width > 0 and height > 0
            frame = (width, height, components, plain, marker == _PROGRESSIVE, offset)
        elif marker == _RESTART_INTERVAL or (marker == 0xE2 and data[offset + 4 : offset + 8] == _SEVERAL_PICTURES):
            in_order = False
        elif marker == 0xE1 and data[offset + 4 : offset + 10] == _EXIF:
            orientation = _exif_orientation(data[offset + 10 : offset + 2 + length])
        offset += 2 + length
    return None


def is_complete(data: bytes, header: JpegHeader) -> bool:
    """Whether an end-of-image marker follows the first scan.

    In entropy-coded data 0xFF is always followed by 0x00 or a restart marker, so the search cannot be fooled by pixels;
    it starts behind the scan header so that an embedded thumbnail's end does not count. Bytes after the marker are
    allowed.
    """
    return data.rfind(_END_OF_IMAGE, header.scan_offset) >= 0


def top_rows(data: bytes, header: JpegHeader, rows: int) -> bytearray | None:
    """The file as if the picture ended early, so that a decoder stops there; the rows that are left are the same.

    The end-of-image marker is left out: a decoder that looks for it behind the last row would find, and complain of,
    the rows that were not asked for. For the last rows of a file a decoder reads on, so these cannot be left out alone.

    Args:
        data: a complete plain file.
        header: of it.
        rows: how many are needed, as stored.

    Returns:
        None where nothing can be saved.
    """
    if not header.block_rows or data[-2:] != _END_OF_IMAGE:
        return None
    # two rows below are needed to smooth colours that were stored at half the size
    height = -(-(rows + 2) // header.block_rows) * header.block_rows
    if height > header.height - header.block_rows:
        return None
    part = bytearray(data)
    del part[-2:]
    struct.pack_into(">H", part, header.frame_offset + 5, height)
    return part


def count_scans(data: bytes, header: JpegHeader) -> int:
    """Number of scans of a progressive file; each one costs a pass over all coefficients."""
    return data.count(bytes((0xFF, _START_OF_SCAN)), header.scan_offset)


def _vertical_sampling(data: bytes, frame_offset: int, components: int) -> int:
    """The largest vertical sampling factor; 4, the largest there is, where the header is cut off."""
    factors = data[frame_offset + 11 : frame_offset + 10 + 3 * components : 3]
    return max((factor & 15 for factor in factors), default=4) or 4


def _exif_orientation(tiff: bytes) -> int:
    """EXIF orientation from the TIFF structure of an APP1 segment; 1 if absent or damaged."""
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
