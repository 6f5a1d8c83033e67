"""Device mode: colours, blur, solarizing and normalisation of a whole batch at once, on the training device.

Data workers then only decode and crop (`TwoViewTransform(device_mode=True)`). For the same seed, a view has the same
parameters as in the other mode; the only difference is that values are not rounded to 8 bits between the operations.

No value is read back from the device. An operation that a view does not have is run with parameters that change
nothing, so there are no branches and no waits, and every batch runs the same kernels.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from .colour import GREY_WEIGHTS, blur_radius
from .draws import CONTRAST, HUE, SATURATION
from .two_views import TwoViewTransform


class DeviceViews:
    """Finishes the batches of a `TwoViewTransform` in device mode.

    Args:
        transform: The transform that made the batches. Its mean, std, threshold and largest blur are used.
    """

    def __init__(self, transform: TwoViewTransform) -> None:
        self.mean, self.std = transform.mean, transform.std
        self.threshold = transform.solarize_threshold
        self.max_sigma = transform.max_sigma if max(transform.chances.blur) > 0 else 0.0

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Finish a batch.

        Args:
            batch: `pixel_values` uint8 (..., 3, size, size) and `view_parameters` float32 (..., P) on one device, with
                the same leading dimensions (batch, 2). Other entries are passed on. The batch itself is not changed.

        Returns:
            A new dictionary without `view_parameters`, with normalised float32 `pixel_values` of the same shape.
        """
        rest = {name: value for name, value in batch.items() if name != "view_parameters"}
        levels, parameters = batch["pixel_values"], batch["view_parameters"]
        with torch.no_grad(), torch.autocast(levels.device.type, enabled=False):
            views = levels.reshape(-1, *levels.shape[-3:]).float() / 255
            views = self._finish(views, parameters.reshape(-1, parameters.shape[-1]).float())
        rest["pixel_values"] = views.reshape(levels.shape)
        return rest

    def _finish(self, views: Tensor, parameters: Tensor) -> Tensor:
        """Turn views (N, 3, H, W) in [0, 1] and parameters (N, P) into normalised views."""
        order, factors = parameters[:, :4], parameters[:, 4:8]
        grayscale, sigma, solarize = (column[:, None, None, None] for column in parameters[:, 8:].unbind(1))
        # At most three operations precede the hue and three follow it; positions without an operation change nothing.
        # Integers: on a GPU, sums of floating-point numbers along a row come in no fixed order.
        before = torch.cumsum((order == HUE).int(), dim=1) == 0
        for position in range(3):
            views = _affine(views, order[:, position], factors, before[:, position])
        views = _turn_hue(views, factors[:, HUE, None, None])
        for position in range(1, 4):
            views = _affine(views, order[:, position], factors, ~before[:, position])
        views = torch.lerp(views, grey(views).expand_as(views), grayscale)
        if self.max_sigma > 0:
            views = _blur(views, sigma.flatten(), blur_radius(self.max_sigma, min(views.shape[-2:])))
        views = torch.where((solarize > 0) & (views >= self.threshold), 1 - views, views)
        mean, std = _channel_constants(self.mean, self.std, views.device)
        return views.sub_(mean).div_(std)


def grey(views: Tensor) -> Tensor:
    """Compute the ITU-R BT.601 luma of (N, 3, H, W), as (N, 1, H, W)."""
    red, green, blue = GREY_WEIGHTS
    return red * views[:, 0:1] + green * views[:, 1:2] + blue * views[:, 2:3]


def _affine(views: Tensor, operation: Tensor, factors: Tensor, wanted: Tensor) -> Tensor:
    """Apply brightness, contrast or saturation, as `operation` (N,) selects, to the views where `wanted` (N,) is true.

    All three have the form a x + g grey(x) + b, clipped to [0, 1].
    """
    number = operation.long()
    wanted = wanted & (operation != HUE)
    a = torch.where(wanted, factors.gather(1, number[:, None])[:, 0], 1.0)
    rest = 1 - a  # 0 for views that do not change
    luma = grey(views)
    g = torch.where(number == SATURATION, rest, 0.0)
    b = torch.where(number == CONTRAST, rest, 0.0) * luma.mean(dim=(1, 2, 3))
    a, g, b = (value[:, None, None, None] for value in (a, g, b))
    return torch.addcmul(g * luma + b, views, a).clamp_(0, 1)


def _turn_hue(views: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue of (N, 3, H, W) by `turn` (N, 1, 1), a fraction of the circle.

    HSV is converted to RGB by f(n) = v - c max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6. It needs the chroma
    c = v s only, never the saturation s itself.
    """
    red, green, blue = views.unbind(1)
    value = views.amax(1)
    chroma = value - views.amin(1)
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sextant = sextant + 6 * turn
    channels = []
    for start in (5, 3, 1):
        k = torch.remainder(sextant + start, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)


def _blur(views: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each (3, H, W) with its own standard deviation (N,) in pixels (0: no blur); borders are reflected."""
    if radius == 0:
        return views
    count, channels, height = views.shape[:3]
    offsets = torch.arange(-radius, radius + 1, device=views.device, dtype=views.dtype)
    # A deviation of 0 is replaced by one so small that all weights but the central one underflow to 0.
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = functional.pad(views, (radius,) * 4, mode="reflect").reshape(1, count * channels, height + 2 * radius, -1)
    planes = functional.conv2d(planes, weights[:, None, None, :], groups=count * channels)
    planes = functional.conv2d(planes, weights[:, None, :, None], groups=count * channels)
    return planes.reshape(views.shape)


@lru_cache(maxsize=16)
def _channel_constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation as (3, 1, 1) on the device; they are copied there only once."""
    return torch.tensor(mean, device=device)[:, None, None], torch.tensor(std, device=device)[:, None, None]
