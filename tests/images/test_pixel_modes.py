"""Images of every way to store pixels look as a person sees them: the values are checked, not only the shapes."""

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ladder_training.errors import BadImageError
from ladder_training.images.decode import decode_image, stored_values

# Four areas of 16 x 16: red, green, blue, light grey.
COLOURS = np.array([[[200, 30, 30], [30, 180, 40]], [[20, 40, 190], [220, 220, 220]]], dtype=np.uint8)
PICTURE = COLOURS.repeat(16, axis=0).repeat(16, axis=1)
LUMA = np.array([0.299, 0.587, 0.114])


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def areas(pixels: np.ndarray) -> np.ndarray:
    """Mean colour of the four areas, away from their borders: (2, 2, 3)."""
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    inner = pixels.reshape(2, 16, 2, 16, 3)[:, 4:12, :, 4:12].astype(float)
    return inner.mean(axis=(1, 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_colours_keep_their_order(kind) -> None:
    """OpenCV decodes to blue, green, red."""
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    got = areas(decode_image(encode(Image.fromarray(PICTURE), kind, **options)))
    np.testing.assert_allclose(got, COLOURS, atol=4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_is_three_equal_channels(kind) -> None:
    got = decode_image(encode(Image.fromarray(PICTURE).convert("L"), kind))
    assert (got == got[..., :1]).all()
    np.testing.assert_allclose(areas(got)[..., 0], COLOURS @ LUMA, atol=1.5)


def test_one_bit_is_black_and_white() -> None:
    bits = np.zeros((32, 32), dtype=bool)
    bits[:, 16:] = True
    got = areas(decode_image(encode(Image.fromarray(bits))))
    assert got[:, 0].tolist() == [[0, 0, 0]] * 2
    assert got[:, 1].tolist() == [[255, 255, 255]] * 2


def test_transparency_lies_on_white() -> None:
    alpha = np.array([[255, 128], [0, 51]], dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    rgba = np.dstack([PICTURE, alpha])
    share = np.array([[255, 128], [0, 51]])[..., None] / 255
    expected = COLOURS * share + 255 * (1 - share)
    for image in (encode(Image.fromarray(rgba)), Image.fromarray(rgba), rgba):
        np.testing.assert_allclose(areas(decode_image(image)), expected, atol=1)
    la = np.dstack([PICTURE[..., 0], alpha])
    expected = COLOURS[..., :1] * share + 255 * (1 - share)
    np.testing.assert_allclose(areas(decode_image(encode(Image.fromarray(la)))), expected.repeat(3, axis=2), atol=1)


def test_palettes_are_looked_up_and_a_transparent_entry_is_white() -> None:
    palette = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1), "P")
    palette.putpalette(COLOURS.reshape(-1).tolist())
    for kind in ("PNG", "GIF"):
        np.testing.assert_array_equal(areas(decode_image(encode(palette, kind))), COLOURS)
    expected = COLOURS.astype(float).copy()
    expected[1, 0] = 255
    np.testing.assert_array_equal(areas(decode_image(encode(palette, transparency=2))), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind) -> None:
    """JPEG stores CMYK inverted, as Adobe does; read as it stands, light areas would be dark."""
    got = areas(decode_image(encode(Image.fromarray(PICTURE).convert("CMYK"), kind)))
    np.testing.assert_allclose(got, COLOURS, atol=6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind) -> None:
    values = np.array([[0, 16448], [32896, 65535]], dtype=np.uint16)
    wide = Image.fromarray(values.repeat(16, axis=0).repeat(16, axis=1))
    got = areas(decode_image(encode(wide, kind)))
    assert got[..., 0].tolist() == [[0, 64], [128, 255]]
    assert (got == got[..., :1]).all()


def test_sixteen_bit_colour_is_scaled() -> None:
    data = cv2.imencode(".png", PICTURE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_allclose(areas(decode_image(data)), COLOURS, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation, kind) -> None:
    """Stored turned or mirrored, with the tag that says so: shown upright."""
    undo = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = Image.fromarray(np.ascontiguousarray(undo(PICTURE)))
    data = encode(stored, kind, exif=exif, **options)
    for image in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_allclose(areas(decode_image(image)), COLOURS, atol=4)


def test_what_is_no_image_is_refused_in_one_line() -> None:
    for thing in (b"", b"hello", encode(Image.fromarray(PICTURE))[:60], {"bytes": None, "path": None}, 3):
        with pytest.raises(BadImageError) as error:
            decode_image(thing)
        assert "\n" not in str(error.value)


STEPS = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bits, 256 different values


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_of_values_stretches_12_bits_to_256_levels(kind) -> None:
    data = encode(Image.fromarray(STEPS), kind)
    assert len(np.unique(decode_image(data))) == 17
    assert stored_values(data) == (0.0, 4080.0, 0.0)
    expected = np.rint(STEPS / 4095 * 255).astype(int)
    pixels = decode_image(data, value_range=(0, 4095))
    assert (pixels == expected[..., None]).all()
    assert len(np.unique(pixels)) == 255
    cut = decode_image(data, value_range=(1024, 2048))
    assert (cut[..., 0] == np.clip(np.rint((STEPS.astype(float) - 1024) * 255 / 1024), 0, 255)).all()


def test_a_range_of_values_is_for_colour_of_16_bits_and_floats_too_and_not_for_8_bits() -> None:
    colour = np.stack([STEPS, STEPS[::-1], STEPS.T], axis=-1)
    data = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    assert stored_values(data) == (0.0, 4080.0, 0.0)
    assert (decode_image(data, value_range=(0, 4095)) == np.rint(colour / 4095 * 255)).all()
    floats = encode(Image.fromarray(STEPS.astype(np.float32)), "TIFF")
    assert (decode_image(floats, value_range=(0, 4095))[..., 0] == np.rint(STEPS / 4095 * 255)).all()
    eight = encode(Image.fromarray(PICTURE))
    assert stored_values(eight) is None
    assert (decode_image(eight, value_range=(0, 4095)) == PICTURE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_range_is_for_turned_tiffs_of_16_bit_colour_too(orientation, big_endian) -> None:
    """The same pixels as an 8-bit TIFF with this tag, which Pillow turns; 12 bits of 16 times the value."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = decode_image(encode(Image.fromarray(small), "TIFF", exif=exif))
    deep = tiff_of_16_bits(small.astype(np.uint16) * 16, orientation, ">" if big_endian else "<")
    got = decode_image(deep, value_range=(0, 255 * 16))
    assert got.shape == expected.shape == ((7, 5, 3) if orientation > 4 else (5, 7, 3))
    np.testing.assert_array_equal(got, expected)
    assert stored_values(deep) == (small.min() * 16.0, small.max() * 16.0, 0.0)


def tiff_of_16_bits(pixels: np.ndarray, orientation: int, order: str) -> bytes:
    """An uncompressed RGB TIFF in one strip: Pillow writes none of 16 bits, OpenCV none that are turned."""
    height, width, _ = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, None), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0)]
    tags += [(274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data))]
    behind = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, kind, count, value in tags:
        value = {258: behind, 273: behind + 6}.get(tag, value)
        inline = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + inline
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return start + entries + struct.pack(f"{order}I3H", 0, 16, 16, 16) + data


@pytest.mark.parametrize("value_range", [None, (-50.0, 50.0)])
def test_floats_that_are_no_numbers_are_black_and_do_not_stretch_the_rest(value_range) -> None:
    values = np.linspace(-50, 50, 256, dtype=np.float32).reshape(16, 16)
    whole = decode_image(encode(Image.fromarray(values), "TIFF"), value_range=value_range)
    values[3, 4], values[5, 6], values[7, 8] = np.nan, -np.inf, np.inf
    data = encode(Image.fromarray(values), "TIFF")
    pixels = decode_image(data, value_range=value_range)
    assert pixels[3, 4].tolist() == pixels[5, 6].tolist() == [0, 0, 0] and pixels[7, 8].tolist() == [255, 255, 255]
    whole[3, 4] = whole[5, 6] = 0
    whole[7, 8] = 255
    np.testing.assert_array_equal(pixels, whole)
    assert stored_values(data) == (-50.0, 50.0, 3 / 256)


def test_an_image_without_any_number_is_unreadable() -> None:
    data = encode(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF")
    for value_range in (None, (0.0, 1.0)):
        with pytest.raises(BadImageError, match="none of its values is a number"):
            decode_image(data, value_range=value_range)
    assert stored_values(data) is None
