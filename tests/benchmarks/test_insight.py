"""The measures of benchmarks/study/insight.py against values known in advance."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

from helpers.scripts import loaded_script


@pytest.fixture(scope="module")
def insight() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/insight.py") as module:
        yield module


class Bowl(nn.Module):
    """loss = half the sum of curvature * weight^2, plus a slope: its gradient is known everywhere."""

    def __init__(self, curvature: list[float], slope: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(curvature)))
        self.curvature, self.slope = torch.tensor(curvature), torch.tensor(slope)

    def gradient(self, weight: torch.Tensor) -> torch.Tensor:
        """Of the loss."""
        return self.curvature * weight + self.slope

    def forward(self):
        """An object with a loss, as the pretraining model gives it."""
        loss = (0.5 * self.curvature * self.weight.square() + self.slope * self.weight).sum()
        return type("Output", (), {"loss": loss})()


def test_signal_is_free_of_the_bias_of_a_small_sample(insight) -> None:
    torch.manual_seed(0)
    noise = [torch.randn(4000) for _ in range(8)]
    # Pure noise has no common part; the plain ratio would be 1 / 8.
    assert insight.signal(noise) == pytest.approx(0, abs=0.02)
    # A common part of square 4000 * 0.25 in noise of square 4000.
    assert insight.signal([0.5 + vector for vector in noise]) == pytest.approx(0.25, abs=0.03)


def test_signal_by_hand(insight) -> None:
    # Mean (2, 0), squares of the distances 1 and 1, so variance 2; |mean|^2 = 4, less 2 / 2.
    assert insight.signal([torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])]) == pytest.approx(3 / 2)


@pytest.mark.parametrize(
    ("curvature", "slope"), [([0.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [0.0, 0.0]), ([0.0, 1000.0], [1.0, -999.0])]
)
def test_steadiness_is_the_cosine_of_the_gradients_around_a_step(insight, curvature, slope) -> None:
    model = Bowl(curvature, slope)
    start = model.weight.detach().clone()
    found = insight.steadiness(model, {"stage1": [model.weight]}, {})["stage1"]
    assert torch.equal(model.weight.detach(), start)
    before = model.gradient(start)
    after = model.gradient(start - insight.STEP * start.norm() / before.norm() * before)
    assert found == pytest.approx(torch.cosine_similarity(before, after, dim=0).item(), abs=1e-6)
    # A plane and a round bowl keep the direction; a narrow valley, crossed by the step, does not.
    assert (found < 0.1) == (curvature[1] == 1000)


def test_stage_gradients_are_those_of_autograd(insight) -> None:
    model = Bowl([3.0, 2.0], [1.0, 1.0])
    found = insight.stage_gradients(model, {"stage1": [model.weight]}, {})["stage1"]
    assert found.tolist() == pytest.approx([4.0, 3.0])


def test_the_table_has_mean_and_spread_over_seeds(insight) -> None:
    def run(value: float) -> dict:
        row = dict.fromkeys(("stem", "stage1", "stage2", "stage3", "stage4"), value)
        return {when: dict.fromkeys(insight.MEASURES, row) for when in ("start", "end")}

    text = insight.table({"byol": {"0": run(1.0), "1": run(3.0)}})
    assert "| signal | start | byol | 2 ± 1 |" in text
    assert insight.figure({"byol": {"0": run(1.0), "1": run(3.0)}}).startswith(b"\x89PNG")
