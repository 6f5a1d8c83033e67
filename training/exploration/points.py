"""What each stage finds similar to one point of an image, in the same image and in others."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ladder_model_cards.figures.style import HEAT

from ..evaluation.backbone import ImageSettings, StageFeatures
from ..evaluation.image_transforms import to_tensor
from ..images.center import center_view

Pixels = npt.NDArray[np.uint8]
Similarities = npt.NDArray[np.float32]
STRENGTH = 0.55
"""Share of the colours in a picture of similarities; the rest is the image."""


@torch.inference_mode()
def similar_places(
    backbone: StageFeatures, settings: ImageSettings, images: Sequence[Pixels], across: float, down: float
) -> dict[str, list[Similarities]]:
    """Compare the features at one point of the first image with the features at every place of all images.

    Args:
        backbone: In eval mode.
        settings: How images are prepared.
        images: uint8 (height, width, 3), each already the square that the network sees (see `seen_square`).
        across: Of the point, from 0 (left) to 1 (right).
        down: Of the point, from 0 (top) to 1 (bottom).

    Returns:
        Stage -> for each image the cosines (rows, columns), from -1 to 1. Features are compared after their average
        over the image is taken off, because that average alone makes all places of an image alike.
    """
    device = next(backbone.parameters()).device
    pixels = torch.stack([to_tensor(image, settings) for image in images]).to(device)
    found = {}
    for stage, maps in backbone(pixels).items():
        rows, columns = maps.shape[-2:]
        features = maps.flatten(2).float()
        if rows * columns > 1:
            features = features - features[:1].mean(dim=2, keepdim=True)
        features = torch.nn.functional.normalize(features, dim=1)
        place = min(int(down * rows), rows - 1) * columns + min(int(across * columns), columns - 1)
        cosines = torch.einsum("c,ncp->np", features[0, :, place], features)
        found[stage] = list(cosines.unflatten(1, (rows, columns)).cpu().numpy())
    return found


def seen_square(image: Pixels, settings: ImageSettings) -> Pixels:
    """The square of an image that the network sees, uint8 (size, size, 3)."""
    return center_view(image, settings.size, settings.crop_fraction)


def coloured(image: Pixels, similarities: Similarities, side: int) -> Pixels:
    """Lay similarities over an image: yellow is most similar, dark blue least.

    Args:
        image: The square that the network saw.
        similarities: (rows, columns), from -1 to 1.
        side: Height and width of the picture in pixels.
    """
    base = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    levels = np.clip(255 * similarities, 0, 255).astype(np.uint8)
    levels = cv2.resize(levels, (side, side), interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{HEAT.upper()}")), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(colours, STRENGTH, base, 1 - STRENGTH, 0)
