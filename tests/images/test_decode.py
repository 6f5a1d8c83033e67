"""Reading images of every kind as a person would see them, and JPEG files only as far as needed."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.pictures import encode, natural_image
from helpers.stream_data import encoded
from ladder_training.errors import BadImageError
from ladder_training.images.decode import decode_image, open_image, stored_values
from ladder_training.images.jpeg_header import count_scans, is_complete, read_jpeg_header, top_rows


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_shown(data: bytes) -> np.ndarray:
    """Pillow's reading, EXIF rotation applied, as RGB."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_is_what_pillow_reads(options: dict[str, Any], grey: bool) -> None:
    image = Image.fromarray(natural_image(47, 66)).convert("L" if grey else "RGB")
    data = file_of(image, "JPEG", **options)
    # the two versions of libjpeg-turbo may smooth halved colours differently
    assert np.abs(decode_image(data).astype(int) - as_shown(data)).max() <= 2


def test_the_size_of_an_opened_image_is_that_of_the_picture_as_shown() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG"):
            opened = open_image(encode(natural_image(31, 57), kind, exif=exif))
            assert (opened.height, opened.width) == ((57, 31) if orientation > 4 else (31, 57))
            assert opened.stored_size == (57, 31)


def test_arrays_with_transparency_lie_on_white_and_floats_are_scaled() -> None:
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, [0, 64, 128, 255]
    expected = [[255, 255, 255], [241, 191, 191], [227, 127, 127], [200, 0, 0]]
    assert np.abs(decode_image(pixels)[0].astype(int) - expected).max() <= 1
    for values in ([0.0, 0.5, 1.0], [0.0, 128.0, 255.0], [-5.0, 0.0, 5.0]):
        assert decode_image(Image.fromarray(np.array([values], np.float32)))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(decode_image(data)[4, 4].astype(int) - (250, 0, 0)).max() < 8


def test_reduced_decoding_keeps_the_shorter_side() -> None:
    data = encoded(100)
    assert decode_image(data, min_size=20).shape == (25, 26, 3)
    assert decode_image(data, min_size=26).shape == (50, 52, 3)
    assert decode_image(data, min_size=51).shape == (100, 104, 3)


# What is wrong


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "empty: 0 bytes"),
        (b"<html><body>404</body></html>", "not an image"),
        (encoded(60)[:-300], "truncated|damaged|Truncated"),
        (encoded(60, kind="PNG")[:-3000], "truncated|Truncated|broken"),
        (b"\xff\xd8\xff" + b"x" * 50, "a damaged JPEG"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels: 5 x 0"),
        (np.zeros((5, 5, 2), np.uint8), "an array of shape"),
        (np.zeros((5, 5, 3), np.float32), "an array of float32"),
        ("/nowhere/at/all.jpg", "no such file"),
        ("a\0b.jpg", "not a path"),
        (17, "."),
    ],
)
def test_reasons(image: Any, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason) as caught:
        decode_image(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "start", [b"", b"P3 ", b"P6\n", b"II*\0", b"BM", b"GIF8", b"\x89PNG\r\n", b"\xff\xd8\xff", b"RIFF"]
)
def test_reasons_quote_nothing_of_a_file_that_is_no_image(start: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secret.jpg"
    file.write_bytes(start + b"hunter2 hunter2 hunter2 hunter2 hunter2 hunter2")
    for image in (str(file), file.read_bytes()):
        with pytest.raises(BadImageError) as caught:
            decode_image(image)
        assert "hunter2" not in str(caught.value)


def test_bombs_are_refused_before_a_pixel_is_decoded() -> None:
    header = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    jpeg = header + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00" + b"\x00" * 100 + b"\xff\xd9"
    with pytest.raises(BadImageError, match="65535 x 65535 is more than 100000000 pixels"):
        open_image(jpeg)
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    small = encode(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(BadImageError, match=r"pixels|bomb"):
        open_image(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
    progressive = file_of(Image.fromarray(natural_image(32, 32)), "JPEG", progressive=True)
    scan = progressive.rfind(b"\xff\xda")
    many = progressive[:scan] + progressive[scan:-2] * 120 + b"\xff\xd9"
    with pytest.raises(BadImageError, match="more than 100 scans"):
        open_image(many)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in (
        (tmp_path, "a directory, not a file"),
        (tmp_path / "link.jpg", "a broken symbolic link"),
        (tmp_path / "pipe.jpg", "not a regular file"),
    ):
        with pytest.raises(BadImageError, match=reason):
            decode_image(path)


# JPEG headers


def test_the_header_of_a_jpeg() -> None:
    image = Image.fromarray(natural_image(47, 66))
    header = read_jpeg_header(file_of(image, "JPEG", subsampling=2))
    assert (header.width, header.height, header.components, header.orientation) == (66, 47, 3, 1)
    assert (header.standard, header.progressive, header.block_rows) == (True, False, 16)
    assert read_jpeg_header(file_of(image, "JPEG", subsampling=0)).block_rows == 8
    assert read_jpeg_header(file_of(image, "JPEG", subsampling=1)).block_rows == 8
    assert read_jpeg_header(file_of(image.convert("L"), "JPEG")).block_rows == 8
    assert read_jpeg_header(file_of(image, "JPEG", restart_marker_blocks=3)).block_rows == 0
    several = file_of(image, "JPEG", progressive=True)
    header = read_jpeg_header(several)
    assert header.progressive
    assert header.block_rows == 0
    assert 5 < count_scans(several, header) < 20
    assert is_complete(several, header)
    assert not is_complete(several[:-2], header)
    data = file_of(image, "JPEG")
    assert read_jpeg_header(b"RIFF" + data) is None
    assert all(read_jpeg_header(data[:length]) is None for length in range(0, 150, 7))


@pytest.mark.parametrize("reduction", [1, 2, 8])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "grey", "4:1:1"])
def test_the_top_of_a_jpeg_is_that_of_the_whole_to_the_bit(subsampling: Any, reduction: int, capfd) -> None:
    image = Image.fromarray(natural_image(133, 90))
    image = image.convert("L") if subsampling == "grey" else image
    data = file_of(image, "JPEG", quality=90, **({} if subsampling == "grey" else {"subsampling": subsampling}))
    opened, shorter = open_image(data), 0
    whole = opened.stored_pixels(reduction)
    for rows in (1, 8, 14, 15, 30, 62, 63, 64, 65, 100, 118, 119, 125, 131, 133):
        found = opened.stored_pixels(reduction, rows=rows)
        needed = -(-rows // reduction)
        assert found.shape[0] >= needed
        assert (found[:needed] == whole[:needed]).all()
        shorter += found.shape[0] < whole.shape[0]
    assert shorter >= 8
    assert capfd.readouterr().err == ""  # libjpeg complains of nothing


def test_what_cannot_be_cut_short_is_decoded_whole() -> None:
    image = Image.fromarray(natural_image(133, 90))
    plain = file_of(image, "JPEG")
    header = read_jpeg_header(plain)
    assert len(top_rows(plain, header, 20)) == len(plain) - 2
    assert top_rows(plain, header, 130) is None
    assert top_rows(plain + b"more", header, 20) is None  # a second picture may follow
    for options in ({"progressive": True}, {"restart_marker_blocks": 4}):
        data = file_of(image, "JPEG", **options)
        assert top_rows(data, read_jpeg_header(data), 20) is None
        assert open_image(data).stored_pixels(rows=20).shape == (133, 90, 3)
    both = io.BytesIO()
    image.save(both, "MPO", save_all=True, append_images=[image])
    assert top_rows(both.getvalue(), read_jpeg_header(both.getvalue()), 20) is None
    # one block wide and flat, rows take a byte or two: where that is too little to read on, all is decoded
    narrow = file_of(Image.new("L", (8, 400), 77), "JPEG")
    assert (open_image(narrow).stored_pixels(rows=300)[:300] == 77).all()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colour_images_of_16_bits_have_a_range(ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (12, 16, 3), dtype=np.uint16)
    data = cv2.imencode(ending, np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    assert stored_values(data) == (float(pixels.min()), float(pixels.max()), 0.0)
    expected = np.rint(pixels * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(data, value_range=(0, 4095)), expected)
    assert decode_image(data).max() <= 16  # as before, without a range
