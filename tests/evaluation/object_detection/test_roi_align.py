"""RoIAlign by matrix products: torchvision's, forward and backward, box by box."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from ladder_training.evaluation.object_detection import roi_align as module
from ladder_training.evaluation.object_detection.roi_align import FastRoIAlign

NAMES, STRIDES, SHAPES = ["a", "b"], [4, 8], [(64, 96), (64, 96), (64, 96)]


def maps(seed: int = 0) -> dict[str, torch.Tensor]:
    """Two levels of three images of 64 x 96 pixels."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(3, 5, 64 // stride, 96 // stride, generator=random).requires_grad_()
        for name, stride in zip(NAMES, STRIDES, strict=True)
    }


def boxes() -> list[torch.Tensor]:
    """None in the second image; large and small ones, one beyond each border, one of no area, in the others."""
    return [
        torch.tensor([[0.0, 0, 96, 64], [10, 10, 14, 13], [-9, -7, 20, 30], [80, 50, 130, 90]]),
        torch.zeros(0, 4),
        torch.tensor([[5.0, 5, 5, 5], [3.3, 40.7, 61.9, 63.2], [200, 200, 260, 260]]),
    ]


def poolers(strides: list[int] = STRIDES) -> tuple[FastRoIAlign, MultiScaleRoIAlign]:
    """Ours and torchvision's."""
    return FastRoIAlign(NAMES, strides, 7, 2, 48), MultiScaleRoIAlign(NAMES, 7, 2, canonical_scale=48)


def test_pooled_boxes_and_gradients_are_torchvisions() -> None:
    outputs, gradients = [], []
    for pooler in poolers():
        features = maps()
        pooled = pooler(features, boxes(), SHAPES)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
        gradients.append(torch.autograd.grad((pooled * weights).sum(), list(features.values())))
        outputs.append(pooled)
    assert outputs[0].shape == (7, 5, 7, 7)
    assert outputs[1].abs().max() > 1
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().max() > 0  # both levels are used
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_under_autocast_positions_are_not_rounded() -> None:
    features = {name: value.detach().bfloat16() for name, value in maps().items()}
    ours, theirs = poolers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = ours(features, boxes(), SHAPES), theirs(features, boxes(), SHAPES)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.01, atol=0.01)


def test_no_boxes_at_all_give_nothing() -> None:
    assert poolers()[0](maps(), [torch.zeros(0, 4)] * 3, SHAPES).shape == (0, 5, 7, 7)


@pytest.mark.parametrize("reason", ["large maps", "strides"])
def test_elsewhere_torchvisions_kernel_is_used(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pool", None)  # calling it would fail
    if reason == "large maps":
        monkeypatch.setattr(module, "LARGEST_MAP", 100)
    ours, theirs = poolers([4, 7] if reason == "strides" else STRIDES)
    assert torch.equal(ours(maps(), boxes(), SHAPES), theirs(maps(), boxes(), SHAPES))
