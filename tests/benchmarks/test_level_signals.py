"""The moments of benchmarks/study/level_signals.py against gradients whose signal and noise are known."""

import importlib.util
from types import ModuleType

import pytest
import torch

from helpers.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "study" / "level_signals.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("level_signals", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_signal_and_noise_of_two_levels_are_told_apart(script) -> None:
    """Means (3, 0, 0) and (2, 0, 0); noises +-1 along the second and the third axis: signal 6, noise 0 together."""
    sign = torch.tensor([1.0, -1.0]).repeat(50)
    other = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(25)
    first = torch.stack([torch.full((100,), 3.0), sign, torch.zeros(100)], dim=1)
    second = torch.stack([torch.full((100,), 2.0), torch.zeros(100), other], dim=1)
    assert script.moments(first, second) == pytest.approx((6.0, 0.0), abs=1e-5)
    # Of a level with itself: the sample's mean has no part of the noise, so its share 1 / 99 is taken off the signal.
    assert script.moments(first, first) == pytest.approx((9 - 1 / 99, 1 + 1 / 99), rel=1e-5)


def test_the_table_has_ratios_cosines_and_correlations_from_means_over_seeds(script) -> None:
    run = {"stage1": {"a a": (0.04, 4.0), "a b": (0.06, 1.0), "b b": (0.09, 1.0)}}
    lines = script.table([run, run]).splitlines()[2:]
    assert lines[0] == "| stage1 | a | 0.010 | | |"
    assert lines[1] == "| stage1 | a, b | 0.010 and 0.090 | 1.00 | 0.50 |"


def test_gradients_of_levels_at_or_above_a_stage(script) -> None:
    """A stage has no gradient of the levels below it, and the last stage's own is not zero."""
    from transformers import ResNetConfig

    from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

    backbone = ResNetConfig(layer_type="basic", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])
    config = LadderSiameseConfig(
        backbone_config=backbone,
        level_names=["stage1", "stage2"],
        level_losses=["global", "global"],
        level_weights=[1.0, 1.0],
        projection_hidden_size=8,
        projection_size=4,
    )
    model = LadderSiameseForPreTraining(config)
    batches = [{"pixel_values": torch.randn(4, 2, 3, 32, 32)} for _ in range(2)]
    found = script.level_gradients(model, batches)
    assert {stage: list(row) for stage, row in found.items()} == {
        "stem": ["stage1.global", "stage2.global"],
        "stage1": ["stage1.global", "stage2.global"],
        "stage2": ["stage2.global"],
    }
    assert all(value.shape[0] == 2 and value.abs().max() > 0 for row in found.values() for value in row.values())
