"""The centre view: what is cropped, and that a thin image is not enlarged as a whole."""

import resource

import cv2
import numpy as np
import pytest

from ladder_training.images.center import center_view


def enlarged_whole(image: np.ndarray, size: int, crop_fraction: float) -> np.ndarray:
    """The same view without the shortcut for thin images."""
    height, width = image.shape[:2]
    scale = max(round(size / crop_fraction), size) / min(height, width)
    new = (max(size, round(width * scale)), max(size, round(height * scale)))
    image = cv2.resize(image, new, interpolation=cv2.INTER_CUBIC)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("height", "width", "size", "crop_fraction"),
    [
        (1, 3000, 64, 1.0),
        (2, 3001, 64, 0.875),
        (7, 1000, 224, 0.875),
        (30, 333, 224, 0.875),
        (1000, 100, 224, 0.875),
        (1001, 33, 96, 1.0),
        (997, 31, 96, 0.9),
        (8, 35, 224, 1.0),
        (20, 50, 64, 0.875),
    ],
)
def test_a_thin_image_has_the_same_view_as_if_all_of_it_were_enlarged(
    height: int, width: int, size: int, crop_fraction: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (5, 5), 2)
    view = center_view(image, size, crop_fraction)
    difference = np.abs(view.astype(int) - enlarged_whole(image, size, crop_fraction))
    assert view.shape == (size, size, 3)
    assert difference.max() <= 1
    assert difference.mean() < 0.05


def test_a_line_of_30_000_pixels_takes_little_memory() -> None:
    line = np.zeros((1, 30_000, 3), np.uint8)
    line[0, 15_000:] = 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    view = center_view(line, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB; all of it enlarged is 4.5 GB
    assert view[0, 0].tolist() == [0, 0, 0]
    assert view[0, -1].tolist() == [200, 200, 200]
