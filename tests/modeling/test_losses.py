"""Losses against hand-computed values and plain references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_ladder.losses import effective_rank, normalised_std, pair_loss, symmetric_loss


def test_same_opposite_and_right_angle() -> None:
    vector = torch.tensor([[3.0, 4.0]])
    assert pair_loss(vector, 2 * vector).item() == pytest.approx(0, abs=1e-6)
    assert pair_loss(vector, -vector).item() == pytest.approx(4, abs=1e-6)
    assert pair_loss(vector, torch.tensor([[-4.0, 3.0]])).item() == pytest.approx(2, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_equals_the_squared_distance_of_unit_vectors_at_any_scale(seed, scale, other_scale) -> None:
    rng = np.random.default_rng(seed)
    p, z = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    unit_p, unit_z = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (p, z))
    expected = ((unit_p - unit_z) ** 2).sum(axis=1)
    got = pair_loss(torch.tensor(p * scale), torch.tensor(z * other_scale))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_directions_are_crossed_and_summed_not_averaged() -> None:
    p1, p2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    z1, z2 = torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 0.0]])
    # p1 against z2: opposite, 4; p2 against z1: same, 0. Uncrossed both would be 2; averaged the sum would be 2.
    predictions = torch.stack([torch.stack([p1, p2]), torch.stack([p1, -p1])])
    targets = torch.stack([torch.stack([z1, z2]), torch.stack([z2, -z2])])
    assert symmetric_loss(predictions, targets).tolist() == pytest.approx([4, 0], abs=1e-6)


def test_half_precision_inputs_are_lifted_to_float32() -> None:
    p, z = torch.randn(64, 256).bfloat16(), torch.randn(64, 256).bfloat16()
    loss = pair_loss(p, z)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, pair_loss(p.float(), z.float()), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pair_loss(p, z), loss, rtol=0, atol=0)


def test_no_gradient_reaches_the_target() -> None:
    p, z = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    pair_loss(p, z).sum().backward()
    assert p.grad is not None
    assert z.grad is None


def test_masked_pairs_do_not_count_and_no_valid_pair_gives_zero() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 2, 3, 5, 8, requires_grad=True), torch.randn(2, 2, 3, 5, 8)
    valid = torch.tensor([True, False, True])
    loss = symmetric_loss(predictions, targets, valid)
    torch.testing.assert_close(loss, symmetric_loss(predictions[:, :, valid], targets[:, :, valid]))
    torch.testing.assert_close(
        loss,
        symmetric_loss(predictions, targets, torch.ones(3, dtype=torch.bool)) * 1.5
        - symmetric_loss(predictions[:, :, ~valid], targets[:, :, ~valid]) / 2,
    )
    loss = symmetric_loss(predictions, targets, torch.zeros(3, dtype=torch.bool)).sum()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predictions.grad, torch.zeros_like(predictions))


def test_spread_is_one_for_spread_out_vectors_and_zero_for_collapsed_ones() -> None:
    assert normalised_std(torch.randn(4000, 64)).item() == pytest.approx(1, abs=0.02)
    assert normalised_std(torch.ones(100, 64) * torch.rand(100, 1)).item() == pytest.approx(0, abs=1e-6)


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5, rel=1e-5)
    assert effective_rank(torch.ones(7, 3)).item() == pytest.approx(1, rel=1e-4)
    singular = torch.tensor([3.0, 1.0])
    share = singular / 4
    expected = math.exp(-(share * share.log()).sum())
    assert effective_rank(torch.diag(singular)).item() == pytest.approx(expected, rel=1e-5)
    assert effective_rank(torch.zeros(3, 3)).item() == 0
