"""What the pixels of a TIFF file are, from its header: tells a whole file of an unusual kind from a damaged one."""

import struct
from typing import NamedTuple

_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _BIG = 42, 43
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of a value: byte, short, long, long8
_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BITS, _OFFSETS, _SAMPLES, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 258, 273, 277, 279, 324, 325, 339
_KINDS = {1: "unsigned integer", 2: "signed integer", 3: "float", 5: "complex integer", 6: "complex float"}
_ORIENTATION = 274
_MOST_VALUES = 1_000_000


class TiffHeader(NamedTuple):
    """The first image of a TIFF file.

    Attributes:
        samples: Values per pixel.
        bits: Bits of each value.
        kind: "unsigned integer", "float", ...
        complete: Whether the file holds all the bytes of the image that its header names.
    """

    samples: int
    bits: int
    kind: str
    complete: bool


def read_tiff_header(data: bytes) -> TiffHeader | None:
    """Read the directory of the first image.

    Returns:
        The header, or None if this is not a TIFF file or its directory is damaged.
    """
    try:
        return _read(data)
    except (struct.error, IndexError, KeyError):
        return None


def split_orientation(data: bytes) -> tuple[int, bytes]:
    """The orientation of the first image of a TIFF file, and the file without it.

    Pillow and OpenCV turn a TIFF while they decode it, whatever they are told; without the tag it stays as stored.

    Returns:
        (1 to 8, the file, to be shown as it is stored). What is no TIFF, or has no such tag, stays as it is.
    """
    try:
        order, long, entries = _entries(data)
        for entry in entries:
            tag, kind, number = struct.unpack_from(order + "HH" + long, data, entry)
            if tag == _ORIENTATION and kind in _LETTERS and number == 1:
                place = entry + 4 + struct.calcsize(order + long)
                (orientation,) = struct.unpack_from(order + _LETTERS[kind], data, place)
                if orientation == 1:
                    break
                changed = bytearray(data)
                struct.pack_into(order + _LETTERS[kind], changed, place, 1)
                return orientation if 1 <= orientation <= 8 else 1, bytes(changed)
    except (struct.error, KeyError):
        pass
    return 1, data


def _entries(data: bytes) -> tuple[str, str, range]:
    """(order of bytes, letter of a number, where each entry starts) of the directory of the first image.

    Raises:
        struct.error, KeyError: this is no TIFF file, or its directory is damaged.
    """
    order = _ORDERS[data[:2]]
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == _CLASSIC:
        (start,) = struct.unpack_from(order + "I", data, 4)
        counter, long, length = "H", "I", 12
    elif version == _BIG:
        (start,) = struct.unpack_from(order + "Q", data, 8)
        counter, long, length = "Q", "Q", 20
    else:
        raise KeyError(version)
    (count,) = struct.unpack_from(order + counter, data, start)
    first = start + struct.calcsize(order + counter)
    return order, long, range(first, first + min(count, _MOST_VALUES) * length, length)


def _read(data: bytes) -> TiffHeader | None:
    order, long, entries = _entries(data)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in entries:
        tag, kind, number = struct.unpack_from(order + "HH" + long, data, entry)
        if kind not in _SIZES or number > _MOST_VALUES:
            continue
        room, place = struct.calcsize(order + long), entry + 4 + struct.calcsize(order + long)
        if number * _SIZES[kind] > room:
            (place,) = struct.unpack_from(order + long, data, place)
        if tag in (_BITS, _OFFSETS, _SAMPLES, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT):
            tags[tag] = struct.unpack_from(f"{order}{number}{_LETTERS[kind]}", data, place)
    offsets = tags.get(_OFFSETS) or tags.get(_TILE_OFFSETS)
    counts = tags.get(_COUNTS) or tags.get(_TILE_COUNTS)
    if not offsets or not counts:
        return None
    ends = [offset + size for offset, size in zip(offsets, counts, strict=False)]
    kind = _KINDS.get(tags.get(_FORMAT, (1,))[0], "unknown")
    return TiffHeader(tags.get(_SAMPLES, (1,))[0], max(tags.get(_BITS, (1,))), kind, max(ends) <= len(data))
