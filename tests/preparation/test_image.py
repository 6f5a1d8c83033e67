"""One image as it is prepared: which file stays, what a new one shows, which is refused."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.pictures import encode, natural_image
from ladder_training.data.content import content_key
from ladder_training.errors import BadImageError
from ladder_training.images.decode import decode_image
from ladder_training.preparation.image import prepare_image


def turned(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(pixels, "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("size", [(600, 800), (801, 600), (2000, 2401)])
def test_a_photograph_keeps_its_shape_and_its_look(size: tuple[int, int]) -> None:
    pixels = natural_image(*size)
    made = prepare_image(encode(pixels, "JPEG", quality=95), 320, 90)
    shown = decode_image(made.data)
    scale = 320 / min(size)
    assert shown.shape[:2] == (round(size[0] * scale), round(size[1] * scale))
    assert not made.kept
    expected = cv2.resize(pixels, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    # JPEG alone changes this noise by a few levels of 255; decoding at a reduced size may not add more than that.
    jpeg = np.abs(decode_image(encode(expected, "JPEG", quality=90)).astype(float) - expected).mean()
    assert np.abs(shown.astype(float) - expected).mean() < 2 * jpeg < 8
    assert made.source_bytes == len(encode(pixels, "JPEG", quality=95))


def test_a_small_jpeg_is_kept_byte_by_byte_and_a_turned_one_is_not() -> None:
    pixels = natural_image(200, 320)
    data = encode(pixels, "JPEG", quality=70)
    made = prepare_image(data, 200, 90)
    assert (made.data, made.kept, made.key) == (data, True, content_key(data))
    assert prepare_image({"bytes": data, "path": "x.jpg"}, 320, 90).data == data
    assert not prepare_image(data, 199, 90).kept
    for orientation in range(2, 9):
        source = turned(pixels, orientation)
        made = prepare_image(source, 320, 95)
        assert not made.kept
        assert Image.open(io.BytesIO(made.data)).getexif().get(0x0112) is None
        difference = np.abs(decode_image(made.data).astype(float) - decode_image(source)).mean()
        assert difference < 3, f"orientation {orientation}: {difference}"


def test_small_images_of_other_formats_stay_and_larger_ones_become_jpeg_files() -> None:
    assert prepare_image(encode(natural_image(32, 32)), 320, 90).kept
    made = prepare_image(encode(natural_image(200, 200)), 320, 90)
    assert not made.kept
    assert made.data[:2] == b"\xff\xd8"
    assert decode_image(made.data).shape == (200, 200, 3)


def test_unusual_pixels_look_as_they_do_in_training() -> None:
    grey = natural_image(300, 400)[..., 0]
    wide = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(wide, "PNG")
    transparent = np.dstack([natural_image(300, 400), grey])
    cmyk = io.BytesIO()
    Image.fromarray(natural_image(300, 400)).convert("CMYK").save(cmyk, "JPEG", quality=95)
    for data in (wide.getvalue(), encode(transparent), cmyk.getvalue()):
        made = prepare_image(data, 320, 95)
        assert not made.kept
        assert np.abs(decode_image(made.data).astype(float) - decode_image(data)).mean() < 3


def test_damaged_and_missing_images_are_refused(tmp_path) -> None:
    data = encode(natural_image(200, 200), "JPEG")
    broken = (b"", b"<html>", data[: len(data) // 2], {"bytes": None, "path": None}, str(tmp_path / "gone.jpg"))
    for image in broken:
        with pytest.raises(BadImageError):
            prepare_image(image, 320, 90)
