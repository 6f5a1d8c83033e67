"""What the pixels of a TIFF file are, from its header: tells a whole file of an unusual kind from a damaged one."""

import struct
from typing import NamedTuple

_ORDERS = {b"II": "<", b"MM": ">"}
_CLASSIC, _BIG = 42, 43
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of a value: byte, short, long, long8
_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BITS, _OFFSETS, _SAMPLES, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 258, 273, 277, 279, 324, 325, 339
_KINDS = {1: "unsigned integer", 2: "signed integer", 3: "float", 5: "complex integer", 6: "complex float"}
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


def _read(data: bytes) -> TiffHeader | None:
    order = _ORDERS[data[:2]]
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version == _CLASSIC:
        (start,) = struct.unpack_from(order + "I", data, 4)
        counter, long, length = "H", "I", 12
    elif version == _BIG:
        (start,) = struct.unpack_from(order + "Q", data, 8)
        counter, long, length = "Q", "Q", 20
    else:
        return None
    (count,) = struct.unpack_from(order + counter, data, start)
    first = start + struct.calcsize(order + counter)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(first, first + min(count, _MOST_VALUES) * length, length):
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
