"""The config: defaults, round trips, and wrong values that raise and name the field."""

import copy

import pytest
from transformers import AutoConfig, ConvNextConfig, Dinov2Config, ResNetConfig, ViTConfig

from modeling_ladder import LadderSiameseConfig


def test_default_is_resnet50_with_a_level_at_every_stage() -> None:
    config = LadderSiameseConfig()
    assert config.backbone_config.hidden_sizes == [256, 512, 1024, 2048]
    assert config.backbone_config.depths == (3, 4, 6, 3) or list(config.backbone_config.depths) == [3, 4, 6, 3]
    assert config.level_names == ["stage1", "stage2", "stage3", "stage4"]
    assert config.backbone_config.out_features == config.out_features == config.level_names
    assert config.level_losses == ["both"] * 4
    assert config.level_weights == [1, 1, 1, 1]


def test_json_round_trip(tmp_path, tiny_backbone) -> None:
    config = LadderSiameseConfig(
        backbone_config=tiny_backbone,
        level_names=["stage2", "stage4"],
        level_losses=["both", "global"],
        level_weights=[0.5, 1],
        local_matching="feature",
        base_momentum=0.9,
        target="stop_gradient",
        classifier_stages=["stage3", "stage4"],
    )
    config.save_pretrained(tmp_path)
    for loaded in (LadderSiameseConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        loaded._name_or_path = ""
        assert loaded.to_dict() == config.to_dict()
        assert (
            loaded.levels
            == config.levels
            == [
                ("stage2", "local", 0.5),
                ("stage2", "global", 0.5),
                ("stage4", "global", 1.0),
            ]
        )


def test_the_given_backbone_config_is_not_changed(tiny_backbone) -> None:
    before = copy.deepcopy(tiny_backbone.to_dict())
    LadderSiameseConfig(backbone_config=tiny_backbone)
    assert tiny_backbone.to_dict() == before


def test_backbone_config_may_be_a_dict() -> None:
    config = LadderSiameseConfig(backbone_config={"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16]})
    assert isinstance(config.backbone_config, ResNetConfig)
    assert config.level_names == ["stage1", "stage2"]
    assert config.level_losses == ["both", "both"]


@pytest.mark.parametrize("backbone", [ConvNextConfig(), Dinov2Config(num_hidden_layers=4)])
def test_other_backbones_have_their_stages_as_levels(backbone) -> None:
    assert LadderSiameseConfig(backbone_config=backbone).level_names == [f"stage{i}" for i in range(1, 5)]


def test_byol_is_one_global_level_on_the_last_stage(tiny_backbone) -> None:
    config = LadderSiameseConfig.byol(backbone_config=tiny_backbone, projection_size=16)
    assert config.levels == [("stage4", "global", 1.0)]
    assert config.projection_size == 16
    with pytest.raises(ValueError, match="level_weights"):
        LadderSiameseConfig.byol(backbone_config=tiny_backbone, level_weights=[2])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("level_names", ["stage9"]),
        ("level_names", []),
        ("level_names", "stage1"),
        ("level_names", ["stage2", "stage1"]),
        ("level_names", ["stage1", "stage1"]),
        ("level_names", ["stem", "stage1"]),
        ("level_losses", ["global"]),
        ("level_losses", ["global", "global", "global", "dense"]),
        ("level_losses", "global"),
        ("level_weights", [1, 1, 1]),
        ("level_weights", [1, 1, 1, -1]),
        ("level_weights", [1, 1, 1, float("nan")]),
        ("level_weights", [1, 1, 1, float("inf")]),
        ("level_weights", [1, 1, 1, "1"]),
        ("level_weights", [0, 0, 0, 0]),
        ("level_weights", 1),
        ("projection_hidden_size", 0),
        ("projection_hidden_size", 4096.0),
        ("projection_size", -1),
        ("projection_size", "256"),
        ("lower_projection_hidden_size", 0),
        ("local_projection_hidden_size", 0),
        ("local_matching", "cells"),
        ("local_matching", None),
        ("local_grid_size", 0),
        ("local_grid_size", True),
        ("target", "momentum"),
        ("base_momentum", 1.01),
        ("base_momentum", -0.1),
        ("base_momentum", float("nan")),
        ("base_momentum", "0.99"),
        ("detach_stages", 1),
        ("classifier_stages", ["stage7"]),
        ("backbone_config", "microsoft/resnet-50"),
        ("backbone_config", ViTConfig()),
        ("backbone_config", {}),
        ("backbone_config", {"model_type": "resnet9000"}),
        ("backbone_config", {"model_type": 3}),
    ],
)
def test_wrong_values_raise_and_name_the_field(field, value, tiny_backbone) -> None:
    fields = {"backbone_config": tiny_backbone, field: value}
    with pytest.raises(ValueError, match=field):
        LadderSiameseConfig(**fields)


def test_a_misspelt_field_names_the_right_one(tiny_backbone) -> None:
    with pytest.raises(ValueError, match="projection_hidden_size"):
        LadderSiameseConfig(backbone_config=tiny_backbone, projection_hiden_size=32)


def test_base_momentum_takes_whole_numbers(tiny_backbone) -> None:
    assert LadderSiameseConfig(backbone_config=tiny_backbone, base_momentum=1).base_momentum == 1


def test_heads_below_the_last_level_are_narrower_unless_told_otherwise() -> None:
    config = LadderSiameseConfig()
    assert [config.hidden_size(stage, "global") for stage in config.level_names] == [1024, 1024, 1024, 4096]
    assert {config.hidden_size(stage, "local") for stage in config.level_names} == {256}
    assert LadderSiameseConfig(level_names=["stage2"]).hidden_size("stage2", "global") == 4096
    small = LadderSiameseConfig(projection_hidden_size=64)
    assert {small.hidden_size(stage, "global") for stage in small.stages} == {64}
    given = LadderSiameseConfig(lower_projection_hidden_size=2048)
    assert given.hidden_size("stage1", "global") == 2048
