"""A training step on a GPU that is not there: no wait of the host, no mix of devices, no operation of chance."""

from typing import Any

import pytest
import torch

from helpers.fake_gpu import (
    AnsweredReads,
    OperationCount,
    fake_gpu,
    needs_fake_cuda,
    views_without_values,
    without_values,
)
from helpers.models import tiny_resnet
from helpers.processes import run_apart
from helpers.training import make_arguments, make_model
from ladder_training.trainer.lars import Lars
from ladder_training.trainer.meters import LevelMeters
from ladder_training.trainer.trainer import LadderTrainer
from ladder_training.views.device import DeviceViews
from ladder_training.views.two_views import TwoViewTransform

READS = {"aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.index", "aten.is_nonzero", "aten.equal"}
NOT_REPEATABLE = {  # on a GPU; from the documentation of torch.use_deterministic_algorithms
    "aten.grid_sampler_2d_backward",
    "aten._adaptive_avg_pool2d_backward",
    "aten.adaptive_max_pool2d_backward",
    "aten.upsample_bilinear2d_backward",
    "aten.upsample_bicubic2d_backward",
    "aten.reflection_pad2d_backward",
    "aten.nll_loss_forward",
    "aten.put_",
    "aten.histc",
    "aten.bincount",
    "aten.median",
    "aten.scatter_add_",
    "aten.index_put_",
}
LEVELS: list[dict[str, Any]] = [
    {"level_losses": ["both", "local", "global+region", "both"]},
    {"level_losses": ["local"] * 4, "local_matching": "feature"},
    {"target": "stop_gradient"},
]


def raw_batch(batch: int = 4) -> dict[str, torch.Tensor]:
    """What data workers send in device mode."""
    transform = TwoViewTransform(size=64, device_mode=True)
    examples = [transform(torch.zeros(80, 80, 3, dtype=torch.uint8).numpy(), seed=seed) for seed in range(batch)]
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


@needs_fake_cuda
@pytest.mark.parametrize("levels", LEVELS)
def test_views_forward_meters_and_update_never_wait_nor_mix_devices(levels) -> None:

    def step() -> dict[str, int]:
        model = make_model(tiny_resnet(), **levels).train()
        views, raw = DeviceViews(TwoViewTransform(size=64, device_mode=True)), raw_batch()
        with fake_gpu(torch.bfloat16), OperationCount() as counted:
            without_values(model)
            batch = views(
                {name: torch.empty(value.shape, dtype=value.dtype, device="cuda") for name, value in raw.items()}
            )
            output = model(**batch)
            LevelMeters().add(output)
            model.update_target(0.99)
            assert {value.device.type for value in [output.loss, *output.level_losses.values()]} == {"cuda"}
        return counted.counts

    counts = run_apart(step)
    assert not counts.keys() & READS
    assert len(counts) > 20


@pytest.mark.parametrize("levels", LEVELS)
def test_backward_and_optimizer_never_wait_and_are_repeatable(levels) -> None:
    """`full_determinism` makes torch refuse the operations of the list."""

    def steps() -> dict[str, int]:
        model = without_values(make_model(tiny_resnet(), **levels).train(), "meta")
        optimizer = Lars(model.parameters(), lr=0.1, weight_decay=1e-6)
        with OperationCount() as counted:
            for _ in range(2):
                batch = views_without_values(device="meta")
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                model.update_target(0.99)
        assert all(parameter.grad is None for parameter in model.parameters())
        return counted.counts

    counts = run_apart(steps)
    assert not counts.keys() & (READS | NOT_REPEATABLE)
    assert counts["aten.convolution_backward"] > 10


def test_sums_along_rows_of_device_views_are_of_integers() -> None:
    """A float cumulative sum comes in no fixed order on a GPU."""
    types = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
            if "cumsum" in str(func):
                types.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Watch():
        DeviceViews(TwoViewTransform(size=64, device_mode=True))(raw_batch())
    assert types == [torch.int32]


def test_the_list_of_what_is_not_repeatable_catches_the_old_sampling() -> None:

    def step() -> dict[str, int]:
        maps = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
        grid = torch.empty(2, 9, 1, 2, device="meta")
        with OperationCount() as counted:
            sampled = torch.nn.functional.grid_sample(maps, grid, align_corners=False)
            (sampled.sum() + torch.nn.functional.adaptive_avg_pool2d(maps, 3).sum()).backward()
        return counted.counts

    assert len(run_apart(step).keys() & NOT_REPEATABLE) == 2


@pytest.mark.parametrize("optimizer", ["lars", "sgd", "adamw"])
def test_on_a_gpu_optimizers_and_the_target_take_no_value_and_no_other_device(tmp_path, optimizer) -> None:
    """Made as the Trainer makes them. AdamW counts its steps in main memory, so that is where it reads them."""
    args = make_arguments(tmp_path, optimizer=optimizer, learning_rate=1e-3)

    def steps() -> tuple[dict[str, int], set[str]]:
        model = make_model(tiny_resnet())
        decayed = set(LadderTrainer.get_decay_parameter_names(None, model))
        with fake_gpu(), AnsweredReads() as answered, OperationCount() as counted:
            without_values(model)
            trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
            groups = [
                {
                    "params": [value for name, value in trained.items() if (name in decayed) == which],
                    "weight_decay": rate,
                }
                for which, rate in ((True, 1e-6), (False, 0.0))
            ]
            kind, words = LadderTrainer.get_optimizer_cls_and_kwargs(args)
            made = kind(groups, **words)
            for _ in range(2):
                for value in trained.values():
                    value.grad = torch.empty_like(value)
                made.step()
                made.zero_grad()
                model.update_target(0.99)
            state = {value.device.type for own in made.state.values() for value in own.values() if value.ndim > 0}
        assert set(counted.counts) & {"aten._foreach_add_", "aten._foreach_lerp_"}
        assert not counted.counts.keys() & (READS - {"aten._local_scalar_dense", "aten.item"})
        return answered.reads, state

    reads, state = run_apart(steps)
    assert state == {"cuda"}
    assert "cuda" not in reads
    assert optimizer == "adamw" or reads == {}
