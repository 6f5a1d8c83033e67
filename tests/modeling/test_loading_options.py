"""Arguments of `from_pretrained` as in transformers: variants, ways of loading, and fields of the config."""

import pytest
import torch
from transformers import Dinov2Backbone, Dinov2Config, ResNetForImageClassification

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
