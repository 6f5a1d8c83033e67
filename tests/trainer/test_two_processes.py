"""Two processes (gloo): one model on both ranks, each image once a pass, exact resume, a target that agrees."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ConvNextConfig

from helpers.models import tiny_resnet
from helpers.paths import HELPERS
from helpers.processes import run_together
from helpers.training import make_arguments, make_model, weights
from helpers.view_dataset import ViewPairs
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder.batch_norm import convert_batch_norms


def launch(script: str, folder: Path) -> list[dict[str, Any]]:
    """Run a script of the helpers on two processes; what each has written."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HELPERS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    words = [str(HELPERS / script), str(folder)]
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    return launch("two_process_training.py", tmp_path_factory.mktemp("two"))


def test_save_strategy_epoch_saves_where_passes_end_and_at_the_end_in_the_middle_of_one(tmp_path: Path) -> None:
    ranks = launch("two_process_epochs.py", tmp_path)
    assert sorted(int(path.name.split("-")[1]) for path in (tmp_path / "run").glob("checkpoint-*")) == [3, 6, 8]
    for name, tensor in ranks[0]["whole"].items():
        assert torch.equal(tensor, ranks[1]["whole"][name]), name
        assert torch.equal(tensor, ranks[0]["resumed"][name]), name


def test_the_model_was_wrapped_without_a_search_for_unused_parameters(ranks) -> None:
    assert [rank["wrapped"] for rank in ranks] == ["DistributedDataParallel"] * 2
    assert [rank["find_unused"] for rank in ranks] == [False] * 2


def test_both_ranks_hold_the_same_weights_target_and_running_statistics(ranks) -> None:
    first, second = (rank["whole"] for rank in ranks)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    moved = "target.backbone.encoder.stages.3.layers.0.layer.0.convolution.weight"
    assert not torch.equal(first[moved], first[moved.removeprefix("target.")])


def test_a_network_with_unused_stages_trains_and_agrees(ranks) -> None:
    first, second = (rank["middle"] for rank in ranks)
    assert [rank["middle_find_unused"] for rank in ranks] == [None] * 2
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    for stage, moved in ((1, True), (3, False)):
        name = f"backbone.encoder.stages.{stage}.layers.0.layer.0.convolution.weight"
        assert torch.allclose(first[name], first[f"target.{name}"], rtol=1e-5, atol=1e-7) != moved


def test_a_pass_over_two_ranks_is_the_data_set_each_image_once(ranks) -> None:
    together = [value for rank in ranks for value in rank["first_pass"]]
    pixels = ViewPairs(24).pixels[:, 0, 0, 0, 0].tolist()
    assert sorted(together) == sorted(pixels)
    assert not set(ranks[0]["first_pass"]) & set(ranks[1]["first_pass"])


def test_resume_on_two_processes_is_exact(ranks) -> None:
    for rank in ranks:
        for name, tensor in rank["whole"].items():
            assert torch.equal(tensor, rank["resumed"][name]), name


def test_logged_losses_agree_and_are_means_over_both_ranks(ranks) -> None:
    first, second = (rank["logged"] for rank in ranks)
    assert first == second
    assert len(first) == 3
    for entry in first:
        assert entry["loss"] > 0
        assert entry["loss/stage1.local"] > 0
        assert entry["batch_std/stage4.global"] > 0


@pytest.mark.parametrize("backbone", ["without batch norm", "with batch norm"])
def test_gradients_are_those_of_one_process_with_the_joined_batch(view_pairs, backbone) -> None:
    """In float64, where rounding cannot hide a difference. The heads have batch norm in both cases."""
    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], num_stages=4)
    config = tiny_resnet() if backbone == "with batch norm" else config
    batch = view_pairs(batch=8, size=64)

    def model() -> Any:
        made = make_model(config, level_weights=[1, 0.5, 1, 2]).train().double()
        return convert_batch_norms(made, synchronised=True)

    def gradients(network: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        network(**inputs).loss.backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    def work(rank: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.parallel.DistributedDataParallel(model(), gradient_as_bucket_view=True)
        found = gradients(network, {name: value[rank::2] for name, value in batch.items()})
        return {name.removeprefix("module."): value for name, value in found.items()}

    joined = gradients(model(), {name: torch.cat([value[0::2], value[1::2]]) for name, value in batch.items()})
    first, second = run_together(work)
    assert first.keys() == joined.keys()
    for name, value in joined.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_targets_are_equal_to_the_bit_after_fifty_steps(tmp_path) -> None:
    def work(rank: int) -> dict[str, torch.Tensor]:
        args = make_arguments(tmp_path, max_steps=50, per_device_train_batch_size=2)
        trainer = LadderTrainer(make_model(tiny_resnet(), base_momentum=0.9), args, ViewPairs(24))
        trainer.train()
        return weights(trainer.pretraining_model)

    first, second = run_together(work)
    start = make_model(tiny_resnet(), base_momentum=0.9).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    moved = "target.backbone.encoder.stages.3.layers.0.layer.0.convolution.weight"
    assert not torch.allclose(first[moved], start[moved])
