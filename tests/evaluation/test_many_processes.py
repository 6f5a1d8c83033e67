"""Evaluation on several processes ends with one network, on the device asked for, or is refused in one line."""

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from datasets import Dataset, Features, Image, Value

from helpers.models import tiny_native_backbone
from helpers.processes import run_together
from ladder_training.errors import UserError
from ladder_training.evaluation import knn, linear, tuning
from ladder_training.evaluation.backbone import StageFeatures
from ladder_training.evaluation.tuning import TunedBackbone, agree_on_statistics, fine_tune, make_accelerator


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps its device for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def features(stages: list[str]) -> StageFeatures:
    return StageFeatures(tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"]), stages)


def tuned(rank: int, stages: list[str], batch_norm: str) -> dict[str, torch.Tensor]:
    """Three steps on images that differ between processes."""
    accelerator = make_accelerator("cpu")
    torch.manual_seed(0)
    network = tuning.shared_statistics(TunedBackbone(features(stages), batch_norm), batch_norm, accelerator)
    model, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.01))
    generator = torch.Generator().manual_seed(rank)
    batches = [torch.randn(4, 3, 64, 64, generator=generator) + rank for _ in range(3)]

    def loss_of(net: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([cells.square().mean() for cells in net(batch).values()]).sum()

    fine_tune(model, batches, loss_of, optimizer, lambda step: 1.0, accelerator)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("batch_norm", ["train", "sync", "frozen"])
def test_training_ends_with_one_network_in_all_processes(batch_norm) -> None:
    first, second = run_together(lambda rank: tuned(rank, ["stage1", "stage4"], batch_norm))
    start = features(["stage1", "stage4"]).state_dict()
    moved = [
        name
        for name in first
        if "running_mean" in name and not torch.equal(first[name], start[name.removeprefix("features.")])
    ]
    assert bool(moved) == (batch_norm != "frozen")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_stages_without_the_last_one_train_on_several_processes() -> None:
    """What they do not need is frozen; DDP would wait for its gradient."""
    first, second = run_together(lambda rank: tuned(rank, ["stage1", "stage2"], "train"))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    network = TunedBackbone(features(["stage1", "stage2"]), "train")
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(".stages.2." in name or ".stages.3." in name for name in frozen)
    assert not any(".stages.2." in n or ".stages.3." in n for n, p in network.named_parameters() if p.requires_grad)


def test_statistics_are_averaged_over_processes() -> None:
    def work(rank: int) -> tuple[float, float, int]:
        norm, frozen = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2).eval()
        for module in (norm, frozen):
            module.running_mean.fill_(1 + 2 * rank)
        agree_on_statistics(torch.nn.ModuleList([norm, frozen]), make_accelerator("cpu"))
        return norm.running_mean[0].item(), frozen.running_mean[0].item()

    assert run_together(work) == [(2, 1), (2, 3)]


def test_the_named_device_computes(fresh_accelerate) -> None:
    """ "meta" stands for a GPU that is not the first."""
    assert make_accelerator("cpu").device == torch.device("cpu")
    assert make_accelerator("cpu:0").device == torch.device("cpu:0")
    assert PartialState().device == torch.device("cpu:0")
    assert make_accelerator(None).device == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_a_device_by_number_is_refused_with_several_processes(monkeypatch, fresh_accelerate) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="each of several processes takes a GPU of its own"):
        make_accelerator("cpu:0")


@pytest.mark.parametrize("task", [knn, linear])
def test_tasks_on_cached_features_are_refused_with_several_processes(tmp_path, monkeypatch, task) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    pixels = np.zeros((8, 32, 32, 3), np.uint8)
    data = Dataset.from_dict(
        {"image": list(pixels), "label": [0, 1] * 4}, features=Features({"image": Image(), "label": Value("int64")})
    )
    with pytest.raises(UserError, match="runs in one process, but 2 were started"):
        task(tiny_native_backbone(), data, test_dataset=data, output=tmp_path)
    assert list(tmp_path.iterdir()) == []
