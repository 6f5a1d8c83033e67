"""Features of many images: never copied as a whole, on their way in, in kNN, and in the linear probe."""

import json
import os
import subprocess
import sys

import pytest
import torch

from helpers.paths import ROOT
from ladder_training.evaluation.feature_buffer import FeatureBuffer
from ladder_training.models.all_stages import with_all_stages
from ladder_training.models.feature_rows import FeatureRows, feature_sets


def peaks(images: int) -> dict[str, float]:
    """The largest resident memory of each step, in sizes of the features."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    environment["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # memory that is given back does not count
    command = [sys.executable, "-m", "helpers.feature_memory", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_step_copies_the_features() -> None:
    found = peaks(60_000)  # 115 MB; blocks take about 55 MB, a share that falls with the number of images
    assert found.keys() == {"collect", "collect, size unknown", "knn", "linear"}
    assert max(found.values()) < 1.75, found


@pytest.mark.slow
def test_features_of_imagenet_take_little_more_than_their_size() -> None:
    found = peaks(1_280_000)
    assert max(found.values()) < 1.2, found


@pytest.mark.parametrize("size", [None, 5, 300, 1000])
def test_the_buffer_holds_what_was_added(size: int | None) -> None:
    batches = [torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) for count in (7, 200, 90, 3)]
    buffer = FeatureBuffer(size)
    for batch in batches:
        buffer.add({"a": batch, "b": batch[:, :1]})
    taken = buffer.take()
    assert torch.equal(taken["a"], torch.cat(batches))
    assert torch.equal(taken["b"], torch.cat(batches)[:, :1])


@pytest.mark.parametrize("normalise", [True, False])
def test_blocks_are_what_joining_all_stages_gives(normalise: bool) -> None:
    features = {
        name: torch.randn(50, width, generator=torch.Generator().manual_seed(width))
        for name, width in (("a", 3), ("b", 8))
    }
    features["a"][7] = 0
    joined = with_all_stages(features, normalise=normalise)
    for name, rows in feature_sets(features, normalise=normalise).items():
        whole = torch.nn.functional.normalize(joined[name], dim=1) if normalise else joined[name]
        assert torch.equal(rows.block(slice(0, 50), "cpu"), whole)
        chosen = torch.tensor([7, 3, 49])
        assert torch.equal(rows.block(chosen, "cpu"), whole[chosen])
        assert torch.equal(torch.cat(list(rows.blocks(None, "cpu"))), whole)
    assert list(feature_sets({"a": features["a"]}, normalise=True)) == ["a"]
    assert FeatureRows([features["a"], features["b"]], normalise=False).width == 11
