"""Images as evaluation needs them: resized and cropped in the middle, or cropped and flipped at random to train."""

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
from .backbone import ImageSettings


def read_image(image: Any, where: str) -> np.ndarray:
    """uint8 (H, W, 3) of anything that `decode_image` reads, for tasks in which no image can be left out.

    Raises:
        UserError: the image cannot be read; `where` says which it is.
    """
    try:
        return decode_image(image)
    except BadImageError as error:
        raise UserError(f"{where} cannot be read: {error}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3): area averaging to shrink, which does not alias, and bicubic to enlarge."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def size_with_shorter_side(height: int, width: int, side: int, longest: int | None = None) -> tuple[int, int]:
    """(height, width) of the same shape whose shorter side is `side`, or whose longer side is at most `longest`."""
    scale = side / min(height, width)
    if longest is not None:
        scale = min(scale, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_tensor(image: np.ndarray, settings: ImageSettings) -> Tensor:
    """Normalised float32 (3, H, W) from uint8 (H, W, 3)."""
    mean = np.asarray(settings.mean, np.float32) * 255
    std = np.asarray(settings.std, np.float32) * 255
    return torch.from_numpy(np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)))


@dataclass(frozen=True)
class CenterTransform:
    """The middle square, of `settings.size` pixels, normalised."""

    settings: ImageSettings

    def __call__(self, image: Any, seed: int | None = None) -> Tensor:
        """Float32 (3, size, size) of anything that `decode_image` reads; `seed` has no effect."""
        array = center_view(decode_image(image), self.settings.size, self.settings.crop_fraction)
        return to_tensor(array, self.settings)


@dataclass(frozen=True)
class RandomCropTransform:
    """Random resized crop (area `min_scale` to 1, aspect 3/4 to 4/3, as Inception's) and a flip half of the time."""

    settings: ImageSettings
    min_scale: float = 0.08

    def __call__(self, image: Any, seed: int | None = None) -> Tensor:
        """Float32 (3, size, size); the same seed gives the same crop."""
        array = decode_image(image)
        generator = np.random.default_rng(seed)
        top, left, height, width = random_crop_box(*array.shape[:2], self.min_scale, generator)
        array = resize(array[top : top + height, left : left + width], self.settings.size, self.settings.size)
        if generator.random() < 0.5:
            array = array[:, ::-1]
        return to_tensor(array, self.settings)


def random_crop_box(
    height: int, width: int, min_scale: float, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop; the largest middle crop of a fitting shape after ten misses."""
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
