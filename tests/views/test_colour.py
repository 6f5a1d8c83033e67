"""Every operation on a view against torchvision's functional reference with the same parameters."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from helpers.pictures import jittered_by_torchvision, random_view, to_tensor
from ladder_training.views import colour
from ladder_training.views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters

UNCHANGED = (1.0, 1.0, 1.0, 0.0)


def jittered(view: np.ndarray, parameters: ColourParameters) -> np.ndarray:
    planes = colour.jitter(view.copy(), parameters).astype(float)
    return np.repeat(planes, 3, axis=0) if len(planes) == 1 else planes


@pytest.mark.parametrize(
    ("operation", "low", "high"),
    [
        (BRIGHTNESS, 0.6, 1.4),
        (BRIGHTNESS, 0.0, 3.0),
        (CONTRAST, 0.6, 1.4),
        (CONTRAST, 0.0, 3.0),
        (SATURATION, 0.8, 1.2),
        (SATURATION, 0.0, 3.0),
        (HUE, -0.1, 0.1),
        (HUE, -0.5, 0.5),
    ],
)
def test_each_jitter_operation_is_torchvisions(operation: int, low: float, high: float) -> None:
    generator = np.random.default_rng(operation)
    for number in range(60):
        view = random_view(generator)
        factors = list(UNCHANGED)
        factors[operation] = float(generator.uniform(low, high)) if number > 1 else (low, high)[number]
        parameters = ColourParameters(factors=tuple(factors))
        found = jittered(view, parameters)
        # half a level is the rounding to 8 bits; the rest is OpenCV's fixed-point colour matrix
        assert np.abs(found - jittered_by_torchvision(view, parameters, exact=True)).max() < 0.5 + 0.35 * max(1, high)
        # torchvision's own 8-bit operations cut fractions off instead of rounding
        if operation in (BRIGHTNESS, HUE):
            assert np.abs(found - jittered_by_torchvision(view, parameters, exact=False)).max() <= 1


def test_grey_is_torchvisions_and_keeps_one_channel() -> None:
    generator = np.random.default_rng(1)
    parameters = ColourParameters(grayscale=True)
    for _ in range(60):
        view = random_view(generator)
        assert len(colour.jitter(view.copy(), parameters)) == 1
        error = np.abs(jittered(view, parameters) - jittered_by_torchvision(view, parameters, exact=True))
        assert error.max() < 0.8


@pytest.mark.parametrize("grayscale", [False, True])
def test_operations_in_random_order_are_nearer_to_the_exact_result_than_torchvision_on_8_bits(grayscale: bool) -> None:
    generator = np.random.default_rng(2)
    ours, theirs = [], []
    for _ in range(250):
        view = random_view(generator)
        factors = tuple(float(generator.uniform(low, high)) for low, high in ((0.6, 1.4), (0.6, 1.4), (0.8, 1.2)))
        order = tuple(generator.permutation(4).tolist())
        parameters = ColourParameters(order, (*factors, float(generator.uniform(-0.1, 0.1))), grayscale)
        exact = jittered_by_torchvision(view, parameters, exact=True)
        ours.append(np.abs(jittered(view, parameters) - exact))
        theirs.append(np.abs(jittered_by_torchvision(view, parameters, exact=False) - exact))
    assert np.mean(ours) < 0.4
    assert np.mean(ours) < 0.5 * np.mean(theirs)
    # a level lost by rounding may grow in later operations, but hardly ever beyond what torchvision loses
    assert np.quantile(ours, 0.999) <= 2.5
    assert np.max(ours) <= np.max(theirs)


def test_clipping_happens_where_torchvision_clips() -> None:
    view = np.full((8, 8, 3), (250, 200, 10), np.uint8)
    brighter_then_darker = ColourParameters((BRIGHTNESS, CONTRAST, SATURATION, HUE), (1.4, 0.6, 1.0, 0.0))
    exact = jittered_by_torchvision(view, brighter_then_darker, exact=True)
    assert np.abs(jittered(view, brighter_then_darker) - exact).max() < 0.8
    assert exact[0, 0, 0] == pytest.approx(255 * 0.6 + 0.4 * (0.2989 * 255 + 0.587 * 255 + 0.114 * 14))


def test_a_view_without_jitter_is_only_split() -> None:
    view = random_view(np.random.default_rng(3))
    planes = colour.jitter(view.copy(), ColourParameters())
    assert (planes == view.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.0, 1.37, 2.0])
def test_blur_is_torchvisions_with_the_kernel_of_byol(sigma: float) -> None:
    """BYOL's kernel has 23 pixels, a tenth of a view; ours ends where the rest is below an eighth of a level."""
    generator = np.random.default_rng(4)
    for _ in range(12):
        view = random_view(generator, 64)
        exact = reference.gaussian_blur(to_tensor(view, exact=True), 23, sigma).numpy() * 255
        found = np.stack([colour.blur(plane, sigma) for plane in view.transpose(2, 0, 1).copy()])
        assert np.abs(found - exact).max() < 0.5 + 0.15


def test_radius_of_the_blur() -> None:
    assert [colour.blur_radius(sigma, 224) for sigma in (0, 0.1, 0.3, 1.0, 2.0)] == [0, 1, 2, 4, 7]
    assert colour.blur_radius(2.0, 5) == 4  # all that can be reflected
    for sigma in (0.5, 1.0, 2.0):
        outside = math.erfc((colour.blur_radius(sigma, 224) + 0.5) / sigma / math.sqrt(2))
        assert 255 * outside / 2 < 0.1
    view = random_view(np.random.default_rng(5), 5)
    exact = reference.gaussian_blur(to_tensor(view, exact=True), 9, 2.0).numpy() * 255
    found = np.stack([colour.blur(plane, 2.0) for plane in view.transpose(2, 0, 1).copy()])
    assert np.abs(found - exact).max() < 0.51


@pytest.mark.parametrize("level", [0, 1, 100, 128, 255])
def test_solarizing_is_torchvisions_at_every_level(level: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = reference.solarize(torch.from_numpy(levels)[None], level)[0].numpy()
    assert (colour.solarize(levels, level) == expected).all()


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = [(1 / (255 * s), -m / s) for m, s in zip(MEAN, STD, strict=True)]


@pytest.mark.parametrize("sigma", [0.0, 1.2])
@pytest.mark.parametrize("solarize", [False, True])
@pytest.mark.parametrize("channels", [3, 1])
def test_finishing_blurs_solarizes_and_normalises(channels: int, solarize: bool, sigma: float) -> None:
    view = random_view(np.random.default_rng(6), 40)
    planes = np.ascontiguousarray(view.transpose(2, 0, 1)[:channels])
    out = np.empty((3, 40, 40), np.float32)
    colour.finish(planes, sigma, 128 if solarize else None, NORMALISE, out)
    tensor = torch.from_numpy(planes).double().expand(3, -1, -1) / 255
    if sigma:
        tensor = reference.gaussian_blur(tensor, 23, sigma)
    if solarize:
        # on 8 bits, as torchvision would see it; a level next to the threshold may fall on either side
        tensor = reference.solarize((tensor * 255).round().to(torch.uint8), 128).double() / 255
    expected = reference.normalize(tensor, MEAN, STD).numpy()
    levels = np.abs(out - expected) * 255 * np.array(STD)[:, None, None]
    assert np.mean(levels > 0.66) < (0.02 if solarize and sigma else 1e-9)
    if not sigma:
        assert levels.max() < 1e-3


def test_channels_are_normalised_each_with_its_own_numbers() -> None:
    out = np.empty((3, 4, 4), np.float32)
    colour.finish([np.full((4, 4), level, np.uint8) for level in (0, 128, 255)], 0.0, None, NORMALISE, out)
    expected = [(value - m) / s for value, m, s in zip((0, 128 / 255, 1), MEAN, STD, strict=True)]
    assert out[:, 2, 2].tolist() == pytest.approx(expected, abs=1e-5)
