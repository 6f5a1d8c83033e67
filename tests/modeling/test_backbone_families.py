"""A Ladder backbone gives transformers' heads the same maps and hidden states as the native backbone inside it.

Those of some families are recorded by hooks of transformers. Hooked twice, each layer would count twice: other maps of
a DINOv2, an error of a ConvNeXt.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from helpers.families import tiny_family
from helpers.models import tiny_resnet
from modeling_ladder import (
    LadderSiameseBackbone,
    LadderSiameseConfig,
    LadderSiameseForImageClassification,
    LadderSiameseForPreTraining,
    LadderSiameseModel,
    load_backbone_into,
)

FAMILIES = ["resnet", "convnext", "swin", "dinov2"]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=FAMILIES)
def native(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    model = tiny_family(request.param)
    model.save_pretrained(tmp_path / "native")
    return model


@torch.no_grad()
def test_maps_and_hidden_states_are_those_of_the_native_backbone(native: Any, images: torch.Tensor, tmp_path) -> None:
    expected = native(images, output_hidden_states=True)
    LadderSiameseModel.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "ladder")
    for folder in ("native", "ladder"):
        backbone = LadderSiameseBackbone.from_pretrained(tmp_path / folder)
        for _ in range(2):
            got = backbone(images, output_hidden_states=True)
            assert len(got.hidden_states) == len(expected.hidden_states) == 5
            for own, theirs in zip(
                (*got.feature_maps, *got.hidden_states), (*expected.feature_maps, *expected.hidden_states), strict=True
            ):
                torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
        assert backbone(images).hidden_states is None
        encoder = LadderSiameseModel.from_pretrained(tmp_path / folder)
        for own, theirs in zip(backbone(images).feature_maps, encoder.feature_maps(images).values(), strict=True):
            assert torch.equal(own, theirs)


@torch.no_grad()
def test_the_ladder_backbone_of_every_family_in_upernet(native: Any, images: torch.Tensor) -> None:
    config = LadderSiameseConfig(backbone_config=native.config)
    model = UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=config, hidden_size=16, auxiliary_channels=8, num_labels=3)
    ).eval()
    load_backbone_into(model, native)
    expected = native(images).feature_maps
    for own, theirs in zip(model.backbone(images).feature_maps, expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(model(images).logits).all()


def test_hidden_states_of_a_resnet_stand_at_its_out_indices(images: torch.Tensor) -> None:
    config = LadderSiameseConfig(backbone_config=tiny_resnet(), out_features=["stage2", "stage4"])
    backbone = LadderSiameseBackbone(config).eval()
    output = backbone(images, output_hidden_states=True)
    assert backbone.out_indices == [2, 4]
    for index, feature_map in zip(backbone.out_indices, output.feature_maps, strict=True):
        assert torch.equal(output.hidden_states[index], feature_map)
    backbone.out_features = ["stem", "stage1"]
    with pytest.raises(ValueError, match="out_features has 'stem', which this model does not compute"):
        backbone(images)


def test_layers_are_computed_again_where_the_backbone_can(native: Any, images: torch.Tensor) -> None:
    """The gradient is the same with less memory; a ResNet of transformers cannot, and pretraining must not."""
    native.config.drop_path_rate = 0.0  # of random paths, other ones would be left out
    config = LadderSiameseConfig(backbone_config=native.config, num_labels=3)
    model = LadderSiameseForImageClassification(config)
    model.backbone.load_state_dict(native.state_dict())
    assert not LadderSiameseForPreTraining(config).supports_gradient_checkpointing
    # What transformers marks: at 5.23 the blocks of a Swin and a DINOv2.
    assert model.supports_gradient_checkpointing == native.supports_gradient_checkpointing
    if not model.supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="does not support"):
            model.activation_checkpointing_enable()
        return
    gradients = []
    for again in (False, True):
        if again:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model.train()(images, labels=torch.tensor([0, 2])).loss.backward()
        gradients.append(
            {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(value, gradients[1][name], atol=1e-6) for name, value in gradients[0].items())
