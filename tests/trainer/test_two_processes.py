"""Two processes (gloo): one model on both ranks, each image once a pass, exact resume, a target that agrees."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from helpers.paths import HELPERS
from helpers.view_dataset import ViewPairs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HELPERS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    script = [str(HELPERS / "two_process_training.py"), str(folder)]
    done = subprocess.run([*command, *script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_the_model_was_wrapped_without_a_search_for_unused_parameters(ranks) -> None:
    assert [rank["wrapped"] for rank in ranks] == ["DistributedDataParallel"] * 2
    assert [rank["find_unused"] for rank in ranks] == [False] * 2


def test_both_ranks_hold_the_same_weights_and_target(ranks) -> None:
    """Batch-norm statistics are each rank's own between two forwards, so parameters are compared."""
    first, second = (rank["whole"] for rank in ranks)
    for name, tensor in first.items():
        if "running_" not in name:
            assert torch.equal(tensor, second[name]), name
    moved = "target.backbone.encoder.stages.3.layers.0.layer.0.convolution.weight"
    assert not torch.equal(first[moved], first[moved.removeprefix("target.")])


def test_a_network_with_unused_stages_trains_and_agrees(ranks) -> None:
    first, second = (rank["middle"] for rank in ranks)
    assert [rank["middle_find_unused"] for rank in ranks] == [None] * 2
    for name, tensor in first.items():
        if "running_" not in name:
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
