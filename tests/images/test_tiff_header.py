"""Whole TIFF files of kinds that cannot be decoded are not called damaged; cut ones are."""

import struct

import pytest

from ladder_training.errors import BadImageError
from ladder_training.images.decode import decode_image
from ladder_training.images.tiff_header import read_tiff_header

SIDE = 4


def tiff(samples: int, bits: int, sample_format: int, order: str = "<", big: bool = False) -> bytes:
    """An uncompressed TIFF of SIDE x SIDE pixels in one strip, its directory last."""
    pixels = bytes(SIDE * SIDE * samples * bits // 8)
    start = 16 if big else 8
    long = "Q" if big else "I"
    many = struct.pack(f"{order}{samples}H", *[bits] * samples)
    room = 8 if big else 4
    tags = [(256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, samples, bits if len(many) <= room else start + len(pixels))]
    tags += [(259, 3, 1, 1), (262, 3, 1, 2 if samples == 3 else 1), (273, 4, 1, start), (277, 3, 1, samples)]
    tags += [(278, 3, 1, SIDE), (279, 4, 1, len(pixels)), (339, 3, 1, sample_format)]
    entries = b""
    for tag, kind, count, value in tags:
        inline = struct.pack(f"{order}{'H' if kind == 3 else 'I'}", value) if count == 1 else b""
        if tag == 258 and len(many) <= room:
            inline = many
        inline = inline.ljust(room, b"\0") if inline else struct.pack(order + long, value)
        entries += struct.pack(order + "HH" + long, tag, kind, count) + inline
    where = start + len(pixels) + len(many)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HHQ", 8, 0, where) if big else struct.pack(order + "I", where)
    directory = struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + struct.pack(order + long, 0)
    return head + pixels + many + directory


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("samples", "bits", "sample_format", "words"),
    [(3, 32, 3, "3 x 32-bit float"), (1, 64, 3, "1 x 64-bit float"), (5, 8, 1, "5 x 8-bit unsigned integer")],
)
def test_an_unusual_kind_is_named(
    order: str, big: bool, samples: int, bits: int, sample_format: int, words: str
) -> None:
    data = tiff(samples, bits, sample_format, order, big)
    header = read_tiff_header(data)
    assert header is not None
    assert header[:2] == (samples, bits)
    assert header.complete
    with pytest.raises(BadImageError, match=f"a TIFF of {words} per pixel, a kind that is not supported"):
        decode_image(data)


def test_what_is_cut_or_nonsense_is_damaged() -> None:
    data = tiff(3, 32, 3)
    for cut in (12, 60, len(data) - 30):
        with pytest.raises(BadImageError, match="a damaged TIFF"):
            decode_image(data[:cut])
    directory = data[:4] + struct.pack("<I", 8) + data[8:]  # the directory is where the pixels are
    with pytest.raises(BadImageError, match="a damaged TIFF"):
        decode_image(directory)
    missing = tiff(5, 8, 1)
    assert read_tiff_header(missing.replace(struct.pack("<I", 80), struct.pack("<I", 8000)))[3] is False


def test_other_files_have_no_tiff_header() -> None:
    for data in (b"", b"II", b"\x89PNG", b"II*\0" + b"\xff" * 40):
        assert read_tiff_header(data) is None
