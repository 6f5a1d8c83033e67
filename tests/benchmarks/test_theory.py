"""The theory of deep linear networks: closed forms against known values, and the cases against simulations."""

import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

from helpers.paths import ROOT
from helpers.scripts import loaded_script

SIGNAL, NOISE = 1.0, 0.25


@pytest.fixture(scope="module")
def theory() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/theory.py") as module:
        yield module


@pytest.fixture(scope="module")
def linear(theory: ModuleType) -> ModuleType:
    """The closed forms and the network."""
    return sys.modules["deep_linear"]


def test_one_layer_has_the_fixed_points_and_the_largest_decay_of_tian_chen_and_ganguli(linear) -> None:
    """a (signal - a total) = decay is quadratic, and has a root up to signal^2 / (4 total)."""
    total, decay = SIGNAL + NOISE, 0.05
    root = (SIGNAL**2 - 4 * decay * total) ** 0.5
    found = linear.collapse_threshold(1, decay, SIGNAL, NOISE)
    assert found == pytest.approx(((SIGNAL - root) / (2 * total), (SIGNAL + root) / (2 * total)), rel=1e-9)
    assert linear.largest_decay(1, SIGNAL, NOISE) == pytest.approx(SIGNAL**2 / (4 * total))
    with pytest.raises(ValueError, match="every start collapses"):
        linear.collapse_threshold(1, 0.21, SIGNAL, NOISE)


def test_the_two_roots_meet_at_the_largest_decay(linear) -> None:
    for depth in (1, 2, 4):
        low, high = linear.collapse_threshold(depth, 0.9999 * linear.largest_decay(depth, SIGNAL, NOISE), SIGNAL, NOISE)
        assert low == pytest.approx(high, rel=0.05)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_start_below_the_threshold_collapses_and_one_above_it_does_not(linear, depth) -> None:
    low, _ = linear.collapse_threshold(depth, 0.008, SIGNAL, NOISE)
    setting = linear.Setting(linear.only(depth, depth), rate=0.25, decay=0.008)
    alive = linear.scalar_survivors(setting, np.array([0.95, 1.05]) * low, SIGNAL, NOISE, 4000)
    assert alive.tolist() == [False, True]


@pytest.mark.parametrize("depth", [1, 3])
def test_the_edge_of_the_step_matrix_is_the_closed_form_at_both_ends(linear, depth) -> None:
    layers = [0.9, 0.7, 0.8][:depth]
    for weights in (linear.only(depth, depth), linear.every(depth)):
        case = (weights, layers, SIGNAL, NOISE)
        assert linear.stability_edge(*case, 0.0) == pytest.approx(linear.edge_of_online_target(*case), rel=1e-4)
        assert linear.stability_edge(*case, 1.0) == pytest.approx(linear.edge_of_fixed_target(*case), rel=1e-4)


def test_without_later_layers_in_the_way_the_first_layer_grows_at_its_own_rate(linear) -> None:
    """p (signal - p total), times the squares of the later layers where only the last loss is there."""
    own = 0.4 * (SIGNAL - 0.4 * (SIGNAL + NOISE))
    rates = [
        linear.growth_rate(linear.Setting(weights, rate=1e-4), 0.5, 0.4, SIGNAL, NOISE)
        for weights in (linear.only(1, 3), linear.only(3, 3), linear.every(3))
    ]
    assert rates == pytest.approx([own, own / 16, own * (1 + 1 / 4 + 1 / 16)], rel=1e-3)


def test_a_step_of_the_network_is_the_scalar_step_of_each_mode(linear) -> None:
    """Full matrices in random bases and autograd against the derived equations."""
    setting = linear.Setting(linear.every(2), rate=0.1, decay=0.01)
    layers = torch.tensor([[0.5, 0.9, 0.2], [0.7, 0.4, 0.6]], dtype=torch.float64)
    predictors = torch.tensor([[0.4, 0.6, 0.9], [0.3, 0.5, 0.2]], dtype=torch.float64)
    signal, noise = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.25, 0.5, 0.1])
    network = linear.LinearNetwork(setting, layers, predictors, signal, noise)
    network.step()
    change = linear.flow(layers.numpy(), predictors.numpy(), setting, signal.numpy(), noise.numpy())
    np.testing.assert_allclose(network.layer_strengths(), layers.numpy() + 0.1 * change[0], atol=1e-6)
    np.testing.assert_allclose(network.predictor_strengths(), predictors.numpy() + 0.1 * change[1], atol=1e-6)
    outside = network.layers[0] - (network.bases[1] * network.layer_strengths()[0]) @ network.bases[0].T
    assert outside.abs().max() < 1e-9  # modes stay apart


def test_predicted_and_measured_agree_within_ten_per_cent(theory) -> None:
    """The cheap cases of the note, of two layers."""
    rows = [theory.growth(kind, 2, tau) for kind in theory.KINDS for tau in (0.0, 0.99)]
    rows += [theory.escape(kind, 2) for kind in theory.KINDS]
    rows += [theory.edge(kind, 2, tau) for kind in ("last", "every") for tau in (0.0, 0.99)]
    rows += [theory.gaussian("last"), theory.minibatches("last")]
    for row in rows:
        assert row.ratio == pytest.approx(1.0, abs=0.1), row
    slow, fast = (theory.escape(kind, 3).measured for kind in ("last", "every"))
    assert slow > 5 * fast


def test_a_gradient_through_a_relu_layer_keeps_the_predicted_share_of_its_signal(theory) -> None:
    noise = sys.modules["gradient_noise"]
    found = noise.measured_share(1, inputs=64, width=512, images=1000)
    assert found == pytest.approx(noise.predicted_share(1), rel=0.1)


def test_signal_to_noise_of_known_gradients(theory) -> None:
    """Gradients 1 + e with e = +-2 in turn: signal 1, noise 4 (4.04 without the bias of 100 images)."""
    errors = torch.tensor([3.0, -1.0]).repeat(50)[:, None]
    found = sys.modules["gradient_noise"].signal_to_noise(errors, torch.ones(100, 1))
    assert found == pytest.approx((1 - 4 / 99) / (4 + 4 / 99))


def test_a_gradient_through_a_residual_block_loses_as_much_signal_as_predicted(theory) -> None:
    noise = sys.modules["gradient_noise"]
    below, last = noise.measured_falls(blocks=2, inputs=32, width=512, images=1000)
    assert last == 1.0
    assert below == pytest.approx(noise.predicted_fall(1), rel=0.12)


def test_ratios_of_levels_and_of_their_sum(theory) -> None:
    noise = sys.modules["gradient_noise"]
    assert noise.predicted_ratio(4, 4, 0.05) == pytest.approx(0.05)
    assert noise.predicted_ratio(4, 3, 0.05) == pytest.approx(0.05 * noise.predicted_fall(1))
    assert noise.predicted_ratio(3, 3, 0.05) == pytest.approx(0.05 / noise.BLOCK_FORWARD**2)
    assert noise.ratio_of_sum([2.0], [0.3]) == pytest.approx(0.3)
    # Signals 1 and 4 in square, noises 4 and 4.
    assert noise.ratio_of_sum([5**0.5, 8**0.5], [0.25, 1.0]) == pytest.approx(5 / 8)


def test_real_runs_are_read_by_loss_and_stage(theory) -> None:
    """Predictions start from BYOL's measured last stage; the figures are those of the committed files."""
    lines = sys.modules["gradient_noise"].table(ROOT / "docs" / "study" / "imagenette64").splitlines()
    rows = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)}
    assert rows["byol, all losses"][3].startswith("0.046 / 0.046 ±")
    assert rows["loss of stage4"] == ["0.008 / 0.010", "0.014 / 0.011", "0.025 / 0.024", "0.046 / 0.041"]
    assert rows["loss of stage1"][1:] == ["", "", ""]
