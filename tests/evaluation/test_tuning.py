"""What every fine-tuning shares: the backbone's own learning rate."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import ResNetBackbone, ResNetConfig

from ladder_training.errors import UserError
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.evaluation.options import DetectionOptions, SegmentationOptions
from ladder_training.evaluation.tuning import TunedBackbone, make_accelerator, tune_on_images

FACTOR = 0.125  # a power of two: a product with it is exact


class Images(Dataset):
    """Eight fixed images."""

    def __init__(self) -> None:
        self.pixels = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        return self.pixels[key[0]]


class Network(nn.Module):
    """A backbone with one linear layer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.body = TunedBackbone(load_backbone(backbone), "frozen")
        self.head = nn.Linear(8, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(list(self.body(pixels).values())[-1].mean(dim=(2, 3)))


def changes_of_one_step(factor: float) -> dict[str, torch.Tensor]:
    """Parameter name to its change in one step of SGD from the same start."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", out_features=["stage1", "stage2"]
    )
    network = Network(ResNetBackbone(config))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    settings = {"steps": 1, "batch_size": 4, "weight_decay": 0.01, "learning_rate": 0.5, "batch_norm": "frozen"}
    tune_on_images(
        network,
        Images(),
        SegmentationOptions(backbone_learning_rate_factor=factor, **settings),
        0,
        make_accelerator("cpu"),
        loss_of=lambda net, pixels: net(pixels).square().mean(),
        factor=lambda step: 1.0,
        collate=torch.stack,
        name="test",
    )
    return {name: value.detach() - before[name] for name, value in network.named_parameters()}


def test_the_backbone_moves_by_its_own_share_of_the_learning_rate_and_the_head_by_the_whole():
    whole, share = changes_of_one_step(1.0), changes_of_one_step(FACTOR)
    moved = {name for name, change in whole.items() if change.any()}
    assert {"head.weight", "head.bias"} < moved
    assert any(name.startswith("body.") and "convolution" in name for name in moved)
    for name in moved:
        expected = whole[name] * (FACTOR if name.startswith("body.") else 1.0)
        torch.testing.assert_close(share[name], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("options", [DetectionOptions, SegmentationOptions])
def test_a_share_for_a_backbone_that_is_frozen_or_of_nothing_is_refused(options):
    with pytest.raises(UserError, match="freeze_backbone trains no backbone"):
        options(freeze_backbone=True, backbone_learning_rate_factor=0.1)
    with pytest.raises(UserError, match="backbone_learning_rate_factor must be greater than 0"):
        options(backbone_learning_rate_factor=0.0)
