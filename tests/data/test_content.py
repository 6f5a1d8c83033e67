"""The content of an image is its bytes or its path, however a data set stores it."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from ladder_training.data.content import content, content_key
from ladder_training.files import bytes_or_path

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (b"jpeg", b"jpeg"),
        ({"bytes": b"jpeg", "path": "a.jpg"}, b"jpeg"),
        ({"bytes": None, "path": "a.jpg"}, "a.jpg"),
        ({"path": "a.jpg"}, "a.jpg"),
        ({"bytes": b"", "path": "a.jpg"}, b""),
        ({"bytes": None, "path": None}, None),
        ("a.jpg", "a.jpg"),
    ],
)
def test_bytes_win_over_the_path(image: object, expected: object) -> None:
    assert bytes_or_path(image) == expected


def test_equal_images_have_equal_keys_wherever_they_lie() -> None:
    key = hashlib.blake2b(b"jpeg", digest_size=16).digest()
    assert content_key(b"jpeg") == content_key({"bytes": b"jpeg", "path": "a.jpg"}) == key
    assert content_key({"bytes": b"jpeg", "path": "b.jpg"}) == key
    assert content_key({"bytes": None, "path": "a.jpg"}) == content_key("a.jpg") != key


def test_the_content_of_decoded_images_is_their_pixels() -> None:
    assert content(PIXELS) == content(Image.fromarray(PIXELS)) == bytes(range(12))
