"""Pictures made for tests, and torchvision's colour operations on them."""

import io
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from ladder_training.views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters


def natural_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with the spectrum of a photograph, uint8 (height, width, 3)."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -1.3
    grey, *colours = (
        np.fft.irfft2(amplitude * np.exp(2j * np.pi * generator.random(amplitude.shape)), s=(height, width))
        for _ in range(4)
    )
    picture = np.stack([grey + 0.3 * colour for colour in colours], axis=-1)
    return np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


ADJUST = {
    BRIGHTNESS: reference.adjust_brightness,
    CONTRAST: reference.adjust_contrast,
    SATURATION: reference.adjust_saturation,
    HUE: reference.adjust_hue,
}


def random_view(generator: np.random.Generator, size: int = 48) -> np.ndarray:
    """Noise, smooth colours, or a few flat ones: uint8 (size, size, 3)."""
    kind = generator.integers(3)
    view = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
    if kind == 1:
        view = cv2.normalize(cv2.GaussianBlur(view, (9, 9), 2.5), None, 0, 255, cv2.NORM_MINMAX)
    if kind == 2:
        palette = generator.choice([0, 1, 64, 127, 128, 254, 255], (8, 3)).astype(np.uint8)
        view = palette[generator.integers(0, 8, (size, size))]
    return np.ascontiguousarray(view)


def to_tensor(view: np.ndarray, exact: bool) -> torch.Tensor:
    tensor = torch.from_numpy(view).permute(2, 0, 1)
    return tensor.double() / 255 if exact else tensor


def jittered_by_torchvision(view: np.ndarray, parameters: ColourParameters, exact: bool) -> np.ndarray:
    """Levels (3, rows, columns); `exact` computes in float64, otherwise on uint8 as torchvision users mostly do."""
    tensor = to_tensor(view, exact)
    for operation in parameters.order:
        tensor = ADJUST[operation](tensor, parameters.factors[operation])
    if parameters.grayscale:
        tensor = reference.rgb_to_grayscale(tensor, num_output_channels=3)
    return tensor.double().numpy() * (255 if exact else 1)


def panels(picture: Image.Image, smallest: int = 100, side: int = 24) -> np.ndarray:
    """The panels of a grid on white paper, wherever they lie, without the texts between them.

    Args:
        picture: A figure of panels in rows and columns.
        smallest: Pixels; what is narrower is a text.
        side: Height and width in pixels to which the panels are averaged.

    Returns:
        float array (panels, side, side, 3), row by row.
    """
    used = np.asarray(picture.convert("RGB")).min(axis=2) < 250
    rows = _runs(used.mean(axis=1) > 0.5, smallest)
    columns = _runs(used[slice(*rows[0])].mean(axis=0) > 0.5, smallest)
    cut = [picture.convert("RGB").crop((left, top, right, low)) for top, low in rows for left, right in columns]
    return np.stack([np.asarray(panel.resize((side, side), Image.Resampling.BOX), float) for panel in cut])


def _runs(used: np.ndarray, smallest: int) -> list[tuple[int, int]]:
    """First and last + 1 of each run of True of some length."""
    edges = np.flatnonzero(np.diff(np.pad(used.astype(int), 1))).reshape(-1, 2)
    return [(int(start), int(stop)) for start, stop in edges if stop - start >= smallest]
