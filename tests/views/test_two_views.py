"""`TwoViewTransform`: crops that are torchvision's, boxes that are true, BYOL's distribution, determinism by seed."""

import itertools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from helpers.pictures import encode, natural_image
from ladder_training.config.image_defaults import IMAGENET_MEAN, IMAGENET_STD
from ladder_training.errors import BadImageError
from ladder_training.images.decode import decode_image
from ladder_training.views.draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, Chances, Draws
from ladder_training.views.two_views import TwoViewTransform

CROP_ONLY = {
    "jitter": 0.0,
    "grayscale": 0.0,
    "blur": (0.0, 0.0),
    "solarize": (0.0, 0.0),
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}


def pixel_boxes(views: dict[str, torch.Tensor], height: int, width: int) -> list[tuple[int, int, int, int]]:
    """The boxes in pixels; they must be whole numbers."""
    exact = views["view_boxes"].double().numpy() * [width, height, width, height]
    assert np.abs(exact - exact.round()).max() < 1e-3
    return [tuple(row) for row in exact.round().astype(int).tolist()]


def cropped_by_torchvision(
    pixels: np.ndarray, box: tuple[int, int, int, int], flip: bool, size: int, antialias: bool = True
) -> np.ndarray:
    """uint8 (3, size, size)."""
    x0, y0, x1, y1 = box
    tensor = torch.tensor(pixels).permute(2, 0, 1)
    bicubic = reference.InterpolationMode.BICUBIC
    tensor = reference.resized_crop(
        tensor, y0, x0, y1 - y0, x1 - x0, [size, size], interpolation=bicubic, antialias=antialias
    )
    return (reference.horizontal_flip(tensor) if flip else tensor).numpy()


@pytest.mark.parametrize("antialias", [True, False])
def test_crop_resize_and_flip_are_torchvisions_on_the_reported_box(antialias: bool) -> None:
    transform = TwoViewTransform(size=40, antialias=antialias, **CROP_ONLY)
    flips = set()
    for seed, (height, width) in enumerate([(300, 200), (37, 90), (41, 40), (20, 13), (512, 512), (40, 40)] * 5):
        pixels = natural_image(height, width, seed)
        views = transform(encode(pixels), seed=seed)
        found = (views["pixel_values"] * 255).round().numpy()
        for view, box in enumerate(pixel_boxes(views, height, width)):
            flip = bool(views["view_flips"][view])
            flips.add(flip)
            assert (found[view] == cropped_by_torchvision(pixels, box, flip, 40, antialias)).all(), (seed, view)
    assert flips == {False, True}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_boxes_and_pixels_are_those_of_the_picture_as_shown(orientation: int, kind: str) -> None:
    stored = natural_image(60, 100, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(stored, kind, exif=exif, **options)
    shown = decode_image(data)
    assert shown.shape[:2] == ((100, 60) if orientation > 4 else (60, 100))
    transform = TwoViewTransform(size=32, **CROP_ONLY)
    for seed in range(4):
        views = transform(data, seed=seed)
        for view, box in enumerate(pixel_boxes(views, *shown.shape[:2])):
            expected = cropped_by_torchvision(shown, box, bool(views["view_flips"][view]), 32).astype(float)
            # rows before columns or columns before rows: the kernel rounds and clips in between
            error = np.abs((views["pixel_values"][view] * 255).numpy() - expected)
            assert error.max() < 6
            assert error.mean() < 0.5


@pytest.mark.parametrize("orientation", [1, 6])
def test_decoding_at_a_reduced_scale_changes_little_and_reports_the_crop_that_was_made(orientation: int) -> None:
    transform, reductions = TwoViewTransform(size=56, min_scale=0.08, **CROP_ONLY), set()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for seed in range(14):
        data = encode(natural_image(501, 703, seed), "JPEG", quality=92, exif=exif)
        whole = decode_image(data)
        height, width = whole.shape[:2]
        views = transform(data, seed=seed)
        for view, box in enumerate(pixel_boxes(views, height, width)):
            flip, found = bool(views["view_flips"][view]), (views["pixel_values"][view] * 255).numpy()
            x0, y0, x1, y1 = box
            shifted = [(x0 + 8, y0, x1 + 8, y1), (x0 - 8, y0, x1 - 8, y1), (x0, y0 + 8, x1, y1), (x0, y0, x1, y1 - 8)]
            boxes = [box, *(other for other in shifted if min(other) >= 0)]
            errors = [np.abs(found - cropped_by_torchvision(whole, other, flip, 56)) for other in boxes]
            assert errors[0].mean() < 2.5
            assert np.quantile(errors[0], 0.99) < 10
            assert errors[0].mean() < 0.6 * min(error.mean() for error in errors[1:])
        # at scale 1/r the edges of both boxes lie on multiples of r of the stored picture, counted from its origin
        sides = np.array(pixel_boxes(views, height, width))
        if orientation == 6:  # shown x counts from the stored bottom
            sides[:, [0, 2]] = width - sides[:, [0, 2]]
        divisor = int(np.gcd.reduce(sides.flatten()))
        reductions.add(max(r for r in (1, 2, 4, 8) if divisor % r == 0))
    assert {2, 4} <= reductions


def test_values_are_normalised_last() -> None:
    settings = {**CROP_ONLY, "flip": 0.0}
    plain = TwoViewTransform(size=32, **settings)
    normalised = TwoViewTransform(size=32, **{**settings, "mean": IMAGENET_MEAN, "std": IMAGENET_STD})
    data = encode(natural_image(50, 50))
    expected = reference.normalize(plain(data, seed=1)["pixel_values"], IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalised(data, seed=1)["pixel_values"], expected, rtol=0, atol=1e-5)


def test_what_a_call_returns() -> None:
    views = TwoViewTransform(size=64)(encode(natural_image(80, 100)), seed=3)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in views.items()} == {
        "pixel_values": (torch.float32, (2, 3, 64, 64)),
        "view_boxes": (torch.float32, (2, 4)),
        "view_flips": (torch.bool, (2,)),
    }
    boxes = views["view_boxes"]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 1).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert TwoViewTransform()(encode(natural_image(80, 100)), seed=3)["pixel_values"].shape == (2, 3, 224, 224)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_bytes_path_pil_array_and_datasets_dictionary_give_the_same_views(tmp_path: Path) -> None:
    pixels = natural_image(90, 70)
    data = encode(pixels)
    (tmp_path / "image.png").write_bytes(data)
    transform = TwoViewTransform(size=32)
    expected = transform(data, seed=5)
    kept = pixels.copy()
    for image in (
        bytearray(data),
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(pixels),
        pixels,
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(tmp_path / "image.png")},
    ):
        assert same(transform(image, seed=5), expected), type(image)
    # a crop of the size of a view is not resized: even then the user's array stays as it was
    transform = TwoViewTransform(size=64, min_scale=1.0, flip=0.0)
    square = natural_image(64, 64)
    kept_square = square.copy()
    assert transform(square, seed=0)["view_boxes"].tolist() == [[0, 0, 1, 1]] * 2
    assert (square == kept_square).all()
    assert (pixels == kept).all()
    pixels.flags.writeable = False
    assert same(TwoViewTransform(size=32)(pixels, seed=5), expected)
    with pytest.raises(BadImageError, match="float32"):
        transform(pixels.astype(np.float32), seed=0)


def test_a_seed_that_is_no_integer_is_refused() -> None:
    """It was cut to one: the views of seed 1.5 were those of seed 1."""
    pixels = natural_image(40, 40)
    transform = TwoViewTransform(size=32)
    assert same(transform(pixels, seed=np.int64(7)), transform(pixels, seed=7))  # type: ignore[arg-type]
    for seed in (1.5, "1", np.float32(2)):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            transform(pixels, seed=seed)  # type: ignore[arg-type]


def test_the_seed_decides_everything_and_nothing_else_is_touched() -> None:
    transform, data = TwoViewTransform(size=32), encode(natural_image(90, 70))
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    made = [transform(data, seed=seed) for seed in range(20)]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    again = [pickle.loads(pickle.dumps(transform))(data, seed=seed) for seed in range(20)]
    assert all(same(first, second) for first, second in zip(made, again, strict=True))
    assert len({views["view_boxes"].numpy().tobytes() for views in made}) == 20
    random.setstate(before[1])
    torch.set_rng_state(before[0])
    np.random.seed(7)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    transform(data, seed=3)
    fresh = [transform(data)["view_boxes"].numpy().tobytes() for _ in range(5)]
    assert len(set(fresh)) == 5  # without a seed: fresh entropy, even where the global generators stand still
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()
    assert (state[2] == np.random.get_state()[1]).all()


def test_views_of_a_seed_stay_what_they_are() -> None:
    """A run that is resumed with a later version of this package must see the same crops."""
    transform = TwoViewTransform(size=32)
    draws = Draws(transform.chances, 12345)
    assert [draws.crop(view, 500, 375) for view in range(2)] == [(63, 5, 478, 352), (11, 57, 231, 305)]
    assert [draws.flip(view) for view in range(2)] == [False, True]
    first, second = (draws.colours(view) for view in range(2))
    assert first.order == (CONTRAST, BRIGHTNESS, SATURATION, HUE)
    assert first.factors == pytest.approx((1.3250677087, 0.7027216722, 1.0071791909, 0.0655448748), abs=1e-9)
    assert first.sigma == pytest.approx(1.2225877042, abs=1e-9)
    assert (first.grayscale, first.solarize, second.sigma) == (False, False, 0.0)


def test_settings_round_trip_and_compare() -> None:
    transform = TwoViewTransform(size=32, hue=0.2, blur=(0.5, 0.0))
    again = TwoViewTransform(**transform.to_dict())
    assert again == transform
    assert hash(again) == hash(transform)
    assert again != TwoViewTransform(size=32)
    assert "hue=0.2" in repr(transform)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be a whole number"),
        ({"size": 32.5}, "size must be a whole number"),
        ({"min_scale": 0.0}, "min_scale must be above 0"),
        ({"min_scale": 0.9, "max_scale": 0.5}, "min_scale .* at most max_scale"),
        ({"max_scale": 1.5}, "max_scale must be at most 1"),
        ({"min_sigma": 3.0}, "min_sigma"),
        ({"flip": 1.5}, "flip must lie between 0 and 1"),
        ({"blur": (1.0, 2.0)}, "blur must lie between 0 and 1"),
        ({"blur": 0.5}, "blur must be 2 numbers"),
        ({"hue": 0.6}, "hue must be at least 0 and at most 0.5"),
        ({"contrast": -0.1}, "contrast must be at least 0"),
        ({"std": (0.2, 0.2, 0.0)}, "std must be above 0"),
        ({"mean": (0.5, 0.5)}, "mean must be 3 numbers"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoViewTransform(**settings)


def test_an_unreadable_image_is_a_bad_image() -> None:
    transform = TwoViewTransform(size=32, max_pixels=1000)
    with pytest.raises(BadImageError, match="more than 1000 pixels"):
        transform(encode(natural_image(40, 40)), seed=0)
    for image in (b"", b"<html></html>", "/nowhere.jpg", {"bytes": None, "path": None}):
        with pytest.raises(BadImageError):
            transform(image, seed=0)


# What is drawn

COUNT = 6000


@pytest.fixture(scope="module")
def drawn() -> list[Draws]:
    return [Draws(TwoViewTransform().chances, seed) for seed in range(COUNT)]


def near(share: float, expected: float) -> bool:
    """Within four standard deviations of a share of `COUNT`."""
    return abs(share - expected) <= 4 * (expected * (1 - expected) / COUNT) ** 0.5


def is_uniform(values: list[float], low: float, high: float) -> bool:
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("view", [0, 1])
def test_probabilities_are_byols(drawn: list[Draws], view: int) -> None:
    colours = [draws.colours(view) for draws in drawn]
    assert near(np.mean([draws.flip(view) for draws in drawn]), 0.5)
    assert near(np.mean([found.factors != (1, 1, 1, 0) for found in colours]), 0.8)
    assert near(np.mean([found.grayscale for found in colours]), 0.2)
    assert near(np.mean([found.sigma > 0 for found in colours]), (1.0, 0.1)[view])
    assert near(np.mean([found.solarize for found in colours]), (0.0, 0.2)[view])


@pytest.mark.parametrize("view", [0, 1])
def test_strengths_are_byols(drawn: list[Draws], view: int) -> None:
    colours = [draws.colours(view) for draws in drawn]
    jittered = [found.factors for found in colours if found.factors != (1, 1, 1, 0)]
    for operation, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        assert is_uniform([factors[operation] for factors in jittered], low, high)
    assert is_uniform([found.sigma for found in colours if found.sigma], 0.1, 2.0)
    orders = [found.order for found in colours]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == COUNT
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("width", "height"), [(500, 375), (100, 400), (2000, 2000)])
def test_crops_have_the_distribution_of_torchvisions_random_resized_crop(
    drawn: list[Draws], width: int, height: int
) -> None:
    torch.manual_seed(0)
    picture = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(picture, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(COUNT)])
    for view in range(2):
        ours = np.array([draws.crop(view, width, height) for draws in drawn])
        sides = ours[:, 2:] - ours[:, :2]
        for mine, other in (
            (ours[:, 1], theirs[:, 0]),
            (ours[:, 0], theirs[:, 1]),
            (sides[:, 1], theirs[:, 2]),
            (sides[:, 0], theirs[:, 3]),
            (sides.prod(1), theirs[:, 2:].prod(1)),
            (sides[:, 0] / sides[:, 1], theirs[:, 3] / theirs[:, 2]),
        ):
            assert stats.ks_2samp(mine, other).pvalue > 1e-3
        assert (ours[:, :2] >= 0).all()
        assert (ours[:, 2:] <= (width, height)).all()


def test_crops_keep_area_and_ratio(drawn: list[Draws]) -> None:
    sides = np.array([draws.crop(0, 2000, 2000) for draws in drawn])
    sides = sides[:, 2:] - sides[:, :2]
    assert sides.prod(1).min() >= 0.079 * 2000**2
    assert (sides[:, 0] / sides[:, 1]).min() >= 0.745
    assert (sides[:, 0] / sides[:, 1]).max() <= 1.345
    allowed = Chances((0.3, 0.5), (1.0, 1.0), 0, 0, 0, 0, 0, 0, 0, (0, 0), (1, 1), (0, 0))
    for seed in range(50):
        x0, y0, x1, y1 = Draws(allowed, seed).crop(0, 1000, 1000)
        assert x1 - x0 == y1 - y0
        assert 0.299 < (x1 - x0) ** 2 / 1e6 < 0.501


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (5000, 1), (1, 1), (3, 2), (30, 1000)])
def test_odd_shapes_fall_back_to_the_largest_middle_crop_as_in_torchvision(width: int, height: int) -> None:
    box = Draws(Chances((1.0, 1.0), (3 / 4, 4 / 3), 0, 0, 0, 0, 0, 0, 0, (0, 0), (1, 1), (0, 0)), 0).crop(
        0, width, height
    )
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    if max(width, height) > 4 * min(width, height):
        torch.manual_seed(0)
        top, left, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), (1.0, 1.0), (3 / 4, 4 / 3))
        assert (x0, y0, x1 - x0, y1 - y0) == (left, top, max(1, w), max(1, h))
    views = TwoViewTransform(size=16)(np.zeros((height, width, 3), np.uint8), seed=1)
    assert torch.isfinite(views["pixel_values"]).all()


def test_the_two_views_are_independent(drawn: list[Draws]) -> None:
    def everything(draws: Draws, view: int) -> list[float]:
        found = draws.colours(view)
        return [*draws.crop(view, 1000, 1000), draws.flip(view), *found.order, *found.factors, *found[2:]]

    first, second = (np.array([everything(draws, view) for draws in drawn], float) for view in range(2))
    first = first[:, first.std(axis=0) > 0]  # view 1 is never solarized
    correlations = np.corrcoef(first.T, second.T)[: first.shape[1], first.shape[1] :]
    assert correlations.shape == (15, 16)
    assert np.abs(correlations).max() < 4.5 / COUNT**0.5


def test_neighbouring_seeds_have_nothing_in_common(drawn: list[Draws]) -> None:
    left = np.array([draws.crop(0, 1000, 1000)[0] for draws in drawn], float)
    assert abs(np.corrcoef(left[:-1], left[1:])[0, 1]) < 4 / COUNT**0.5
