"""How much of a mini-batch gradient is common to all of them, in random networks with ReLUs: predicted and measured.

The first layer is linear; above it lie layers of centred ReLUs, as batch norm leaves them, with random weights. A loss
stands on the first layer (its own) or on the last; its gradient enters through a random predictor, as at the start of
training. docs/theory.md derives the prediction, which holds for many inputs and wide layers.
"""

import math

import torch
from torch import Tensor

MEAN = 1 / math.sqrt(2 * math.pi)  # of a ReLU of a standard normal variable
VARIANCE = 0.5 - MEAN**2
FORWARD = 0.25 / VARIANCE  # what a layer leaves of the small correlation of two images
BACK = 0.5  # what a layer leaves of the correlation of their gradients


def predicted_share(layers: int) -> float:
    """Signal-to-noise ratio of the last loss's gradient in the first layer over that of the first layer's own loss.

    Args:
        layers: ReLU layers between them.
    """
    return (FORWARD * BACK) ** layers


def measured_share(
    layers: int, correlation: float = 0.8, inputs: int = 128, width: int = 2048, images: int = 2000
) -> float:
    """The same of one network, from the gradients of single images.

    Args:
        layers: ReLU layers between the first layer and the last loss.
        correlation: Of two views of an image.
        inputs: Size of an image.
        width: Of each layer.
        images: How many there are.
    """
    random = torch.Generator().manual_seed(layers)

    def gaussian(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=random) / rows**0.5

    common, *spread = (torch.randn(images, inputs, generator=random) for _ in range(3))
    views = [correlation**0.5 * common + (1 - correlation) ** 0.5 * part for part in spread]
    weights = [gaussian(inputs, width), *(gaussian(width, width) for _ in range(layers))]
    maps = [[view @ weights[0] for view in views]]
    for weight in weights[1:]:
        maps.append([(view.relu() - MEAN) / VARIANCE**0.5 @ weight for view in maps[-1]])
    predictor = gaussian(width, width)
    own, error = maps[0][1] @ predictor, maps[-1][1] @ predictor
    for weight, (first, _) in zip(weights[:0:-1], maps[-2::-1], strict=True):
        error = (error @ weight.T) * (first > 0)
    return signal_to_noise(error, views[0]) / signal_to_noise(own, views[0])


def signal_to_noise(errors: Tensor, inputs: Tensor) -> float:
    """|E g|^2 / E|g - E g|^2 of the gradients g = error input' of single images, free of the bias of a sample."""
    products = (errors @ errors.T) * (inputs @ inputs.T)
    count = len(errors)
    alone = products.diagonal().mean().item()
    pairs = (products.sum().item() - count * alone) / (count * (count - 1))
    return pairs / (alone - pairs)
