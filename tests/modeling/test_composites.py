"""A pretrained backbone in transformers' and torchvision's detection and segmentation models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    ResNetBackbone,
    ResNetForImageClassification,
    ResNetModel,
    RTDetrConfig,
    RTDetrForObjectDetection,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from helpers.models import tiny_resnet
from modeling_ladder import (
    LadderSiameseBackbone,
    LadderSiameseConfig,
    LadderSiameseForPreTraining,
    LadderSiameseModel,
    load_backbone_into,
    save_native_backbone,
)


def upernet(config: Any) -> torch.nn.Module:
    return UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=config, hidden_size=16, auxiliary_channels=8, num_labels=3)
    )


def detr(config: Any) -> torch.nn.Module:
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 3, "num_labels": 3}
    return DetrForObjectDetection(DetrConfig(use_timm_backbone=False, backbone_config=config, **small, **heads))


def mask2former(config: Any) -> torch.nn.Module:
    small = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
    widths = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "num_attention_heads": 2, "num_queries": 3}
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=config, **small, **widths))


def maskformer(config: Any) -> torch.nn.Module:
    queries = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 3}
    widths = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    decoder = DetrConfig(use_timm_backbone=False, backbone_config=config, **queries, **widths)
    return MaskFormerForInstanceSegmentation(
        MaskFormerConfig(backbone_config=config, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32)
    )


def rt_detr(config: Any) -> torch.nn.Module:
    small = {"encoder_hidden_dim": 32, "d_model": 32, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 3}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_layers": 1, "num_labels": 3}
    inputs = {
        "encoder_in_channels": config.hidden_sizes,
        "feat_strides": [4, 8, 16, 32],
        "decoder_in_channels": [32] * 4,
        "encode_proj_layers": [3],
        "num_feature_levels": 4,
    }
    return RTDetrForObjectDetection(RTDetrConfig(backbone_config=config, **small, **heads, **inputs))


COMPOSITES: dict[str, tuple[Callable[[Any], torch.nn.Module], Callable[[Any], Any]]] = {
    "upernet": (upernet, lambda model: model.backbone),
    "detr": (detr, lambda model: model.model.backbone.model),
    "mask2former": (mask2former, lambda model: model.model.pixel_level_module.encoder),
    "maskformer": (maskformer, lambda model: model.model.pixel_level_module.encoder),
}


@pytest.fixture
def pretrained(tiny_backbone) -> LadderSiameseForPreTraining:
    """Weights and statistics that no new model has."""
    torch.manual_seed(0)
    config = LadderSiameseConfig(backbone_config=tiny_backbone, projection_hidden_size=8, projection_size=8)
    model = LadderSiameseForPreTraining(config).eval()
    with torch.no_grad():
        for tensor in model.backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


@pytest.mark.parametrize("name", list(COMPOSITES))
def test_a_published_backbone_in_a_composite_model(pretrained, tmp_path, name) -> None:
    make, backbone_of = COMPOSITES[name]
    save_native_backbone(pretrained, tmp_path / "published")
    published = ResNetBackbone.from_pretrained(tmp_path / "published")
    model = make(published.config)
    assert load_backbone_into(model, tmp_path / "published") is model
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model.eval()
    own = backbone_of(model)
    for got, expected in zip(own(images).feature_maps, published(images).feature_maps, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    # DETR keeps batch norm frozen, as a small batch needs it; every weight trains.
    frozen = [m for m in own.modules() if type(m).__name__ == "DetrFrozenBatchNorm2d"]
    assert bool(frozen) == (name == "detr")
    sum(value.float().pow(2).sum() for value in model(images).values() if torch.is_tensor(value)).backward()
    for key, parameter in own.named_parameters():
        assert parameter.requires_grad, key
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    model.save_pretrained(tmp_path / "saved")
    loaded = type(model).from_pretrained(tmp_path / "saved").eval()
    for got, expected in zip(backbone_of(loaded)(images).feature_maps, own(images).feature_maps, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_published_backbone_in_rt_detr(pretrained, tmp_path) -> None:
    """It reads the widths from the config of a native backbone, so only that kind goes in."""
    save_native_backbone(pretrained, tmp_path)
    published = ResNetBackbone.from_pretrained(tmp_path)
    model = load_backbone_into(rt_detr(published.config), tmp_path).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for got, expected in zip(
        model.model.backbone.model(images).feature_maps, published(images).feature_maps, strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(COMPOSITES))
def test_the_ladder_backbone_is_a_backbone_of_transformers(pretrained, name) -> None:
    make, backbone_of = COMPOSITES[name]
    model = make(pretrained.config).eval()
    assert isinstance(backbone_of(model), LadderSiameseBackbone)
    load_backbone_into(model, pretrained)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = backbone_of(model)(images).feature_maps
    assert len(maps) == 4
    for got, expected in zip(maps, pretrained.feature_maps(images).values(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.isfinite(value).all() for value in model(images).values() if torch.is_tensor(value))


def test_torchvisions_feature_pyramid_on_both_kinds(pretrained, tmp_path) -> None:
    save_native_backbone(pretrained, tmp_path)
    images = torch.randn(1, 3, 64, 96)
    for backbone in (ResNetBackbone.from_pretrained(tmp_path), LadderSiameseBackbone.from_pretrained(tmp_path)):
        pyramid = FeaturePyramidNetwork(backbone.channels, 16)
        maps = pyramid(dict(zip(backbone.out_features, backbone(images).feature_maps, strict=True)))
        assert [tuple(value.shape) for value in maps.values()] == [
            (1, 16, 16, 24),
            (1, 16, 8, 12),
            (1, 16, 4, 6),
            (1, 16, 2, 3),
        ]


def test_another_architecture_is_refused_and_nothing_changes(pretrained, tiny_backbone) -> None:
    wider = tiny_resnet(hidden_sizes=[8, 12, 16, 24])
    deeper = tiny_resnet(depths=[1, 1, 1, 2])
    shallower = tiny_resnet(hidden_sizes=[8, 12, 16], depths=[1, 1, 1])
    for config in (wider, deeper, shallower):
        config.out_features = config.stage_names[1:]
        model = DetrForObjectDetection(detr(config).config)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError, match="differ at 'encoder"):
            load_backbone_into(model, pretrained)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for other in (ResNetModel(tiny_backbone), torch.nn.Linear(2, 2), None):
        with pytest.raises(ValueError, match=r"no transformers backbone.*`ladder export --format`"):
            load_backbone_into(other, pretrained)


def test_whatever_holds_the_backbone_can_be_given(pretrained, tmp_path) -> None:
    """Folders of a run, its pretraining/ and a Ladder model; models and classifiers of transformers."""
    save_native_backbone(pretrained, tmp_path / "native")
    pretrained.save_pretrained(tmp_path / "native" / "pretraining")
    LadderSiameseModel.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "ladder")
    classifier = ResNetForImageClassification.from_pretrained(tmp_path / "native")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = pretrained.feature_maps(images)
    folders = [tmp_path / "native", tmp_path / "native" / "pretraining", tmp_path / "ladder"]
    for source in (*folders, classifier, classifier.resnet, LadderSiameseModel.from_pretrained(folders[0])):
        model = load_backbone_into(upernet(pretrained.config.backbone_config), source).eval()
        for got, stage_map in zip(model.backbone(images).feature_maps, expected.values(), strict=True):
            torch.testing.assert_close(got, stage_map, rtol=1e-5, atol=1e-5)
    model = load_backbone_into(upernet(pretrained.config.backbone_config), folders[0], subfolder="pretraining").eval()
    torch.testing.assert_close(model.backbone(images).feature_maps[-1], expected["stage4"], rtol=1e-5, atol=1e-5)
