"""Device mode: the same parameters for the same seed, the same views, batched, without waiting for the device."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as reference

from helpers.pictures import encode, jittered_by_torchvision, natural_image, random_view
from ladder_training.config.image_defaults import IMAGENET_MEAN, IMAGENET_STD
from ladder_training.views.device import DeviceViews
from ladder_training.views.draws import PARAMETER_COUNT, ColourParameters, Draws
from ladder_training.views.two_views import TwoViewTransform

STD = torch.tensor(IMAGENET_STD)[:, None, None]


def batch_of(count: int, **settings: object) -> tuple[TwoViewTransform, list[dict], dict[str, torch.Tensor]]:
    """The transform in device mode, the views of the other mode, and a batch of device mode, for the same seeds."""
    device = TwoViewTransform(size=48, device_mode=True, **settings)
    plain = TwoViewTransform(size=48, **settings)
    images = [encode(natural_image(70, 90, seed)) for seed in range(count)]
    made = [device(image, seed=seed) for seed, image in enumerate(images)]
    batch = {name: torch.stack([views[name] for views in made]) for name in made[0]}
    return device, [plain(image, seed=seed) for seed, image in enumerate(images)], batch


def test_what_a_worker_hands_over_is_small_and_the_same_crop() -> None:
    transform, plain, batch = batch_of(12)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["view_parameters"].shape == (12, 2, PARAMETER_COUNT)
    for number, views in enumerate(plain):
        assert torch.equal(batch["view_boxes"][number], views["view_boxes"])
        assert torch.equal(batch["view_flips"][number], views["view_flips"])
        draws = Draws(transform.chances, number)
        for view in range(2):
            expected = [float(number) for number in draws.colours(view).to_row()]
            assert batch["view_parameters"][number, view].tolist() == pytest.approx(expected, abs=1e-6)


def test_both_modes_give_the_same_views_for_the_same_seed() -> None:
    transform, plain, batch = batch_of(40)
    finished = DeviceViews(transform)(batch)
    assert set(finished) == {"pixel_values", "view_boxes", "view_flips"}
    assert finished["pixel_values"].dtype == torch.float32
    expected = torch.stack([views["pixel_values"] for views in plain])
    levels = (finished["pixel_values"] - expected).abs() * STD * 255
    # what is left is the rounding to 8 bits between the operations of the other mode; where a level lies next to the
    # threshold of solarizing, that rounding can decide, which moves it by one or two levels (255 - 128 is 127)
    assert levels.mean() < 0.5
    assert levels.flatten().kthvalue(int(0.999 * levels.numel())).values < 3.5
    kinds = batch["view_parameters"]
    assert (kinds[..., 8] > 0).any()
    assert (kinds[..., 9] > 0).any()
    assert (kinds[..., 10] > 0).any()


def test_every_operation_is_torchvisions_in_float() -> None:
    generator = np.random.default_rng(0)
    transform = TwoViewTransform(size=48, device_mode=True)
    views, parameters, expected = [], [], []
    for number in range(60):
        view = random_view(generator)
        factors = [float(generator.uniform(low, high)) for low, high in ((0.4, 1.6), (0.4, 1.6), (0.5, 1.5))]
        found = ColourParameters(
            order=tuple(generator.permutation(4).tolist()),
            factors=(*factors, float(generator.uniform(-0.5, 0.5))) if number % 5 else (1.0, 1.0, 1.0, 0.0),
            grayscale=number % 4 == 0,
            sigma=float(generator.uniform(0.1, 2.0)) if number % 3 else 0.0,
        )
        exact = torch.from_numpy(jittered_by_torchvision(view, found, exact=True)) / 255
        if found.sigma:
            exact = reference.gaussian_blur(exact, 23, found.sigma)
        views.append(torch.from_numpy(view).permute(2, 0, 1))
        parameters.append(found.to_row())
        expected.append(reference.normalize(exact, IMAGENET_MEAN, IMAGENET_STD))
    finished = DeviceViews(transform)({"pixel_values": torch.stack(views), "view_parameters": torch.tensor(parameters)})
    levels = (finished["pixel_values"] - torch.stack(expected)).abs() * STD * 255
    assert levels.max() < 0.2  # the ends of the Gaussian, and torchvision's grey that loses 0.03 levels on white


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_solarizing(threshold: float) -> None:
    transform = TwoViewTransform(
        size=16, device_mode=True, solarize_threshold=threshold, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    row = torch.tensor([ColourParameters(solarize=solarize).to_row() for solarize in (True, False)])
    finished = DeviceViews(transform)({"pixel_values": torch.stack([levels, levels]), "view_parameters": row})
    expected = reference.solarize(levels, int(np.ceil(threshold * 255))).double() / 255
    torch.testing.assert_close(finished["pixel_values"][0].double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(finished["pixel_values"][1].double(), levels.double() / 255, rtol=0, atol=1e-6)


def test_a_view_does_not_depend_on_its_batch_and_the_batch_is_not_changed() -> None:
    transform, _, batch = batch_of(6)
    kept = {name: value.clone() for name, value in batch.items()}
    finish = DeviceViews(transform)
    whole = finish(batch)["pixel_values"]
    assert all(torch.equal(batch[name], kept[name]) for name in kept)
    for number in range(6):
        alone = finish({name: value[number : number + 1] for name, value in batch.items()})["pixel_values"]
        torch.testing.assert_close(alone[0], whole[number], rtol=0, atol=1e-5)


class NoAnswers(TorchDispatchMode):
    """Refuses the operations by which a program waits for a value of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def test_no_value_is_asked_of_the_device() -> None:
    transform, _, batch = batch_of(3)
    with NoAnswers():
        finished = DeviceViews(transform)(batch)["pixel_values"]
        with pytest.raises(AssertionError, match="waits"):
            finished.sum().item()
    assert finished.shape == (3, 2, 3, 48, 48)


def test_mixed_precision_of_the_training_step_does_not_reach_the_views() -> None:
    transform, _, batch = batch_of(3)
    finish = DeviceViews(transform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = finish(batch)["pixel_values"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, finish(batch)["pixel_values"])
