"""Transforms of evaluation: resize and centre crop, or random crops and flips for training."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import BadImageError, UserError
from ..images.center import center_view
from ..images.decode import decode_image
from ..images.value_range import ValueRange
from .backbone import ImageSettings

WITHOUT_SKIPPING = "this task leaves no image out: write that one again, or take it and its labels out of the data"
"""What to do about an image that cannot be read, where none is skipped."""


def read_image(image: Any, where: str, value_range: ValueRange | None = None) -> np.ndarray:
    """Decode an image to uint8 (H, W, 3), for tasks that cannot skip an image.

    Args:
        image: Anything that `decode_image` reads.
        where: Names the image in messages.
        value_range: As in `ImageSettings`.

    Raises:
        UserError: the image cannot be read.
    """
    try:
        return decode_image(image, value_range=value_range)
    except BadImageError as error:
        raise UserError(f"{where} cannot be read: {error}; {WITHOUT_SKIPPING}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3): shrinking averages areas, which does not alias; enlarging is bicubic."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def size_with_shorter_side(height: int, width: int, side: int, longest: int | None = None) -> tuple[int, int]:
    """Scale (height, width) to a shorter side of `side`, or less if the longer side would exceed `longest`."""
    scale = side / min(height, width)
    if longest is not None:
        scale = min(scale, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_tensor(image: np.ndarray, settings: ImageSettings) -> Tensor:
    """Convert uint8 (H, W, 3) to normalised float32 (3, H, W)."""
    mean = np.asarray(settings.mean, np.float32) * 255
    std = np.asarray(settings.std, np.float32) * 255
    return torch.from_numpy(np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)))


@dataclass(frozen=True)
class CenterTransform:
    """Resize, crop the central square of `settings.size` pixels, and normalise."""

    settings: ImageSettings

    def __call__(self, image: Any, seed: int | None = None) -> Tensor:
        """Convert anything that `decode_image` reads to float32 (3, size, size); `seed` has no effect."""
        array = center_view(
            decode_image(image, value_range=self.settings.value_range), self.settings.size, self.settings.crop_fraction
        )
        return to_tensor(array, self.settings)


@dataclass(frozen=True)
class RandomCropTransform:
    """Random resized crop (area `min_scale` to 1, aspect ratio 3/4 to 4/3, as for Inception) and a random flip."""

    settings: ImageSettings
    min_scale: float = 0.08
    flip: bool = True

    def __call__(self, image: Any, seed: int | None = None) -> Tensor:
        """Convert anything that `decode_image` reads to float32 (3, size, size); the same seed gives the same crop."""
        array = decode_image(image, value_range=self.settings.value_range)
        generator = np.random.default_rng(seed)
        rows, columns = array.shape[:2]
        top, left, height, width = random_crop_box(rows, columns, self.min_scale, generator)
        array = resize(array[top : top + height, left : left + width], self.settings.size, self.settings.size)
        if generator.random() < 0.5 and self.flip:
            array = array[:, ::-1]
        return to_tensor(array, self.settings)


def random_crop_box(
    height: int, width: int, min_scale: float, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw a random crop (top, left, height, width); after ten misfits, return the largest centre crop that fits."""
    for _ in range(10):
        area = height * width * generator.uniform(min_scale, 1.0)
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(generator.integers(0, height - crop_height + 1))
            left = int(generator.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width, crop_height = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
