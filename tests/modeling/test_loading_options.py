"""Arguments of `from_pretrained` as in transformers: variants, ways of loading, and fields of the config."""

import json

import pytest
import torch
from transformers import AutoConfig, Dinov2Backbone, Dinov2Config, ResNetForImageClassification

from helpers.models import tiny_native_backbone, tiny_resnet
from modeling_ladder import (
    LadderSiameseConfig,
    LadderSiameseForImageClassification,
    LadderSiameseForPreTraining,
    LadderSiameseModel,
)


@pytest.fixture
def model() -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    return LadderSiameseForPreTraining(
        LadderSiameseConfig(backbone_config=tiny_resnet(), projection_hidden_size=16, projection_size=8)
    )


@pytest.mark.parametrize("shards", ["50GB", "20KB"])
def test_a_variant_is_loaded_and_checked(model, tmp_path, shards) -> None:
    model.save_pretrained(tmp_path / "ladder", variant="fp32", max_shard_size=shards)
    model.backbone.save_pretrained(tmp_path / "native", variant="fp32", max_shard_size=shards)
    for folder in ("ladder", "native"):
        loaded = LadderSiameseModel.from_pretrained(tmp_path / folder, variant="fp32")
        expected = model.backbone.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.backbone.state_dict().items())
        with pytest.raises(ValueError, match=r"model\.fp16\.safetensors"):
            LadderSiameseModel.from_pretrained(tmp_path / folder, variant="fp16")
        for file in (tmp_path / folder).glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-4])
        with pytest.raises(ValueError, match="cut off"):
            LadderSiameseModel.from_pretrained(tmp_path / folder, variant="fp32")


def test_heads_that_a_native_model_cannot_give_are_said_to_be_missing(tmp_path) -> None:
    ResNetForImageClassification(tiny_resnet(num_labels=4)).save_pretrained(tmp_path)
    for kind, heads in (
        (LadderSiameseModel, set()),
        (LadderSiameseForImageClassification, {"classifier"}),
        (LadderSiameseForPreTraining, {"projectors", "predictors"}),
    ):
        _, info = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert {name.split(".")[0] for name in info["missing_keys"]} == heads


def test_ways_of_loading_a_native_backbone_are_no_fields_of_the_config(tmp_path) -> None:
    tiny_native_backbone().save_pretrained(tmp_path)
    ways = {"low_cpu_mem_usage": True, "ignore_mismatched_sizes": True, "use_safetensors": True, "weights_only": True}
    loaded = LadderSiameseModel.from_pretrained(tmp_path, **ways, trust_remote_code=False, num_labels=5)
    assert loaded.config.num_labels == 5
    assert not {*ways, "trust_remote_code"} & loaded.config.to_dict().keys()
    with pytest.raises(TypeError, match="strictly"):
        LadderSiameseModel.from_pretrained(tmp_path, strictly=True)
    with pytest.raises(ValueError, match="did you mean level_weights"):
        LadderSiameseForPreTraining.from_pretrained(tmp_path, level_weigths=[1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"level_weights": [1.0]}, "level_weights"),
        ({"level_names": ["stage4"]}, "level_losses"),
        ({"local_matching": "near"}, "local_matching"),
        ({"base_momentum": 2}, "base_momentum"),
    ],
)
def test_fields_given_at_loading_are_checked_like_those_of_the_constructor(model, tmp_path, change, named) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=named):
        LadderSiameseConfig.from_pretrained(tmp_path, **change)
    with pytest.raises(ValueError, match=named):
        LadderSiameseForPreTraining.from_pretrained(tmp_path, **change)
    saved = model.config.to_dict()
    with pytest.raises(ValueError, match=named):
        LadderSiameseConfig.from_dict(saved, **change)
    assert saved == model.config.to_dict()


def test_fields_given_at_loading_replace_those_of_the_file(model, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    changes = {"level_names": ["stage2"], "level_losses": ["global"], "level_weights": [2.0], "num_labels": 7}
    config, rest = LadderSiameseConfig.from_pretrained(tmp_path, return_unused_kwargs=True, unknown=1, **changes)
    assert config.levels == [("stage2", "global", 2.0)] and config.num_labels == 7 and rest == {"unknown": 1}
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path, level_losses=["global"] * 4)
    assert [kind for _, kind, _ in loaded.config.levels] == ["global"] * 4


@pytest.mark.parametrize("model_class", [LadderSiameseModel, LadderSiameseForPreTraining])
def test_the_attention_that_is_asked_for_is_that_of_every_network(model_class, tmp_path) -> None:
    sizes = {"image_size": 28, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    Dinov2Backbone(Dinov2Config(**sizes, out_features=["stage2", "stage4"])).save_pretrained(tmp_path / "native")
    native = model_class.from_pretrained(tmp_path / "native", attn_implementation="eager")
    native.save_pretrained(tmp_path / "ladder")
    saved = model_class.from_pretrained(tmp_path / "ladder", attn_implementation="eager")
    for loaded in (native, saved):
        networks = [module for module in loaded.modules() if isinstance(module, Dinov2Backbone)]
        assert len(networks) == (2 if model_class is LadderSiameseForPreTraining else 1)
        assert {network.config._attn_implementation for network in networks} == {"eager"}
    assert model_class.from_pretrained(tmp_path / "native").backbone.config._attn_implementation == "sdpa"


def test_a_config_beside_a_native_backbone_may_be_a_path_and_must_fit(model, tmp_path) -> None:
    model.save_pretrained(tmp_path / "ladder")
    tiny_native_backbone().save_pretrained(tmp_path / "native")
    load = LadderSiameseForPreTraining.from_pretrained
    for config in (model.config, tmp_path / "ladder", str(tmp_path / "ladder")):
        loaded = load(tmp_path / "native", config=config)
        assert loaded.config.projection_size == 8
        assert torch.equal(
            loaded.backbone.embedder.embedder.convolution.weight,
            tiny_native_backbone().embedder.embedder.convolution.weight,
        )
    native = AutoConfig.from_pretrained(tmp_path / "native")
    for folder in ("native", "ladder"):
        with pytest.raises(ValueError, match="needs a LadderSiameseConfig, got ResNetConfig"):
            load(tmp_path / folder, config=native)
    with pytest.raises(ValueError, match="LadderSiameseModel needs a LadderSiameseConfig, got ResNetConfig"):
        LadderSiameseModel(native)
    with pytest.raises(ValueError, match="projection_size is given beside a config"):
        load(tmp_path / "native", config=model.config, projection_size=4)
    other = LadderSiameseConfig(backbone_config=tiny_resnet(hidden_sizes=[8, 12, 16, 24]))
    with pytest.raises(ValueError, match=r"differ at 'encoder\.stages\.3.*give a config with this backbone"):
        load(tmp_path / "native", config=other)


def test_fields_set_after_construction_are_checked_when_a_model_is_made(model) -> None:
    for name, value in (("local_matching", "near"), ("level_losses", ["global"]), ("level_names", ["stage9"])):
        config = LadderSiameseConfig.from_dict(model.config.to_dict())
        setattr(config, name, value)
        with pytest.raises(ValueError, match=name):
            LadderSiameseForPreTraining(config)


def test_folders_that_hold_no_model_are_named(model, tmp_path) -> None:
    model.save_pretrained(tmp_path / "run" / "pretraining")
    load = LadderSiameseModel.from_pretrained
    assert load(tmp_path / "run", subfolder="pretraining").config.stages == model.config.stages
    for name, where, message in (
        (tmp_path / "nowhere", {}, "there is no folder .*nowhere"),
        ("./nowhere", {}, "there is no folder ./nowhere"),
        (tmp_path / "run", {}, "run holds no config.json"),
        (tmp_path / "run", {"subfolder": "other"}, "run/other is no folder"),
    ):
        with pytest.raises(OSError, match=message):
            load(name, **where)


def test_code_of_the_folder_that_was_read_is_not_named_in_the_folder_that_is_written(model, tmp_path) -> None:
    """config.json would name files that are not there."""
    model.save_pretrained(tmp_path / "hub")
    path = tmp_path / "hub" / "config.json"
    code = {"auto_map": {"AutoConfig": "configuration_ladder.LadderSiameseConfig"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    LadderSiameseForImageClassification.from_pretrained(tmp_path / "hub").save_pretrained(tmp_path / "own")
    assert "auto_map" not in json.loads((tmp_path / "own" / "config.json").read_text())


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, torch.device("cpu")])
def test_placed_weights_are_those_of_the_file(model, tmp_path, device_map) -> None:
    model.save_pretrained(tmp_path / "ladder", max_shard_size="5KB")
    model.backbone.save_pretrained(tmp_path / "native", max_shard_size="5KB")
    assert len(list((tmp_path / "ladder").glob("*.safetensors"))) > 10
    expected = model.state_dict()
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path / "ladder", device_map=device_map)
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path / "native", device_map=device_map)
    assert all(torch.equal(value, expected[f"backbone.{name}"]) for name, value in loaded.backbone.state_dict().items())


def test_weights_left_on_the_disk_until_they_are_used(model, tmp_path) -> None:
    model.save_pretrained(tmp_path / "ladder")
    model.backbone.save_pretrained(tmp_path / "native")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    away = {"device_map": {"": "disk"}, "offload_folder": str(tmp_path / "offload")}
    loaded = LadderSiameseModel.from_pretrained(tmp_path / "ladder", **away)
    assert all(value.is_meta for value in loaded.parameters())
    torch.testing.assert_close(loaded(images).pooler_output, model.eval().feature_maps(images)["stage4"].mean((2, 3)))
    with pytest.raises(ValueError, match=r"puts .*native in several places.*name it, as in device_map='cpu'"):
        LadderSiameseModel.from_pretrained(tmp_path / "native", **away)
