"""Training on the GPU: resuming, mixed precision, compiling, shared batch norm against torch's, and memory."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.models import tiny_resnet
from helpers.training import make_arguments, make_model, weights
from helpers.view_dataset import ViewPairs
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder.batch_norm import _Synchronised

pytestmark = pytest.mark.cuda


def train(folder: Path, device: torch.device, resume: bool = False, **fields: Any) -> LadderTrainer:
    fields = {"use_cpu": device.type == "cpu", "save_strategy": "steps", "save_steps": 3, **fields}
    trainer = LadderTrainer(make_model(tiny_resnet()), make_arguments(folder, **fields), ViewPairs())
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-3") if resume else None)
    return trainer


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, tensor in first.items():
        if tensor.is_floating_point():
            scale = tensor.abs().max().item() + 1e-3
            torch.testing.assert_close(
                second[name].float() / scale,
                tensor.float() / scale,
                rtol=0,
                atol=tolerance,
                msg=lambda m, n=name: f"{n}: {m}",
            )


def test_resuming_gives_the_weights_of_a_run_that_was_not_interrupted(tmp_path: Path, device: torch.device) -> None:
    """On a GPU sums have no fixed order: tolerance 1e-3 of each tensor's largest entry after 3 steps."""
    whole = train(tmp_path / "run", device)
    again = train(tmp_path / "run", device, resume=True)
    assert_close(weights(whole.model.cpu()), weights(again.model.cpu()), 1e-3)
    assert again.state.global_step == whole.state.global_step == 6


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_keeps_weights_and_target_in_float32(
    precision: str, tmp_path: Path, device: torch.device
) -> None:
    if device.type == "cpu" and precision == "fp16":
        precision = "bf16"  # the Trainer has no fp16 on a CPU
    plain = train(tmp_path / "plain", device, logging_steps=1)
    mixed = train(tmp_path / "mixed", device, logging_steps=1, **{precision: True})
    assert {parameter.dtype for parameter in mixed.model.parameters()} == {torch.float32}
    first = [next(log["loss"] for log in trainer.state.log_history if "loss" in log) for trainer in (plain, mixed)]
    assert first[1] == pytest.approx(first[0], rel=3e-2)


def test_a_compiled_step_has_the_same_loss(tmp_path: Path, view_pairs: Callable, device: torch.device) -> None:
    model = make_model(tiny_resnet()).train().to(device)
    batch = {name: value.to(device) for name, value in view_pairs(batch=8, size=64).items()}
    expected = copy.deepcopy(model)(**batch).loss
    backend = "inductor" if device.type == "cuda" else "eager"
    compiled = torch.compile(model, backend=backend)
    loss = compiled(**batch).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.cuda(rehearse=False)  # the kernels of shared batch norm exist on a GPU only
def test_shared_batch_norm_is_torchs_batch_norm(device: torch.device) -> None:
    """In a group of one process, the kernels that share statistics must give plain batch norm, forward and backward."""
    import torch.distributed as dist

    dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29591", rank=0, world_size=1)
    try:
        for layout in (torch.contiguous_format, torch.channels_last):
            generator = torch.Generator(device).manual_seed(0)
            inputs = torch.randn(8, 12, 9, 7, device=device, generator=generator).to(memory_format=layout)
            weight, bias = (torch.randn(12, device=device, generator=generator) for _ in range(2))
            found = []
            for shared in (False, True):
                leaves = [tensor.clone().requires_grad_() for tensor in (inputs, weight, bias)]
                mean, variance = torch.zeros(12, device=device), torch.ones(12, device=device)
                if shared:
                    output = _Synchronised.apply(*leaves, mean, variance, 1e-5, 0.1)
                else:
                    output = torch.nn.functional.batch_norm(leaves[0], mean, variance, *leaves[1:], True, 0.1, 1e-5)
                (output * inputs.sin()).sum().backward()
                found.append([output, mean, variance, *(leaf.grad for leaf in leaves)])
            for plain, other in zip(*found, strict=True):
                torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-3)
    finally:
        dist.destroy_process_group()


@pytest.mark.cuda(rehearse=False)  # torch counts memory on a GPU only
def test_memory_does_not_grow_from_step_to_step(view_pairs: Callable, device: torch.device) -> None:
    model = make_model(tiny_resnet()).train().to(device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    batch = {name: value.to(device) for name, value in view_pairs(batch=8, size=64).items()}
    taken = []
    for _ in range(20):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.99)
        taken.append(torch.cuda.memory_allocated())
    assert taken[-1] == taken[4]
