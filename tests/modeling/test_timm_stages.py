"""Networks of timm: their stages, what they save, and who can load it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TimmWrapperConfig

from modeling_ladder import (
    LadderSiameseBackbone,
    LadderSiameseConfig,
    LadderSiameseForPreTraining,
    LadderSiameseModel,
    load_native_backbone,
    save_native_backbone,
)
from modeling_ladder.timm_configs import with_stages
from modeling_ladder.timm_stages import TimmStagesConfig

pytest.importorskip("timm")
HEADS = {"projection_hidden_size": 16, "projection_size": 8}
# Levels, and channels of the last stage.
NETWORKS = {
    "resnet10t": (["stage1", "stage2", "stage3", "stage4"], 512),
    "vit_tiny_patch16_224": (["stage3", "stage6", "stage9", "stage12"], 192),
    "swin_tiny_patch4_window7_224": (["stage1", "stage2", "stage3", "stage4"], 768),
    "convnext_atto": (["stage1", "stage2", "stage3", "stage4"], 320),
    "mobilenetv3_small_050": (["stage1", "stage2", "stage3", "stage4"], 288),
}


def config(architecture: str, **fields: object) -> LadderSiameseConfig:
    return LadderSiameseConfig(
        backbone_config={"model_type": "timm_wrapper", "architecture": architecture}, **HEADS, **fields
    )


def trained(architecture: str) -> LadderSiameseForPreTraining:
    """A model after one step of training, so that no statistic is at its initial value."""
    torch.manual_seed(0)
    model = LadderSiameseForPreTraining(config(architecture)).train()
    images = torch.randn(2, 2, 3, 64, 64)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 2, 4)
    loss = model(images, view_boxes=whole, view_flips=torch.zeros(2, 2, dtype=torch.bool)).loss
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=1e-3).step()
    model.update_target(0.9)
    return model.eval()


@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_network_of_timm_is_saved_and_loaded_to_the_bit(architecture: str, tmp_path: Path) -> None:
    model = trained(architecture)
    levels, channels = NETWORKS[architecture]
    assert model.config.level_names == levels and model.backbone.channels[-1] == channels
    save_native_backbone(model, tmp_path)
    model.save_pretrained(tmp_path / "pretraining")
    images = torch.randn(2, 3, 96, 64)
    want = model.feature_maps(images)
    again = LadderSiameseForPreTraining.from_pretrained(tmp_path / "pretraining")
    for loaded in (again, LadderSiameseModel.from_pretrained(tmp_path)):
        got = loaded.feature_maps(images)
        assert list(got) == list(want) and all(torch.equal(got[name], want[name]) for name in want)
    for left, right in zip(again.target.parameters(), model.target.parameters(), strict=True):
        assert torch.equal(left, right)
    assert LadderSiameseBackbone.from_pretrained(tmp_path)(images).feature_maps[-1].shape[1] == channels


def test_without_this_package_transformers_and_timm_compute_the_same(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    for architecture in ("resnet10t", "vit_tiny_patch16_224"):
        model = trained(architecture)
        save_native_backbone(model, tmp_path / architecture)
        maps = model.feature_maps(images)
        stored = {"images": images, **{name: value.detach() for name, value in maps.items()}}
        torch.save(stored, tmp_path / architecture / "expected.pt")
    code = """
import sys, torch, timm
from transformers import AutoModel, AutoModelForImageClassification
for folder in sys.argv[1:]:
    maps = torch.load(folder + "/expected.pt")
    images, last = maps.pop("images"), list(maps.values())[-1]
    model = AutoModel.from_pretrained(folder).eval()
    assert type(model).__name__ == "TimmWrapperModel"
    with torch.no_grad():
        assert torch.allclose(model(images).pooler_output, last.mean((2, 3)), atol=1e-5)
        for network in (timm.create_model("local-dir:" + folder, pretrained=True).eval(), model.timm_model):
            got = network.forward_intermediates(images, norm=True, intermediates_only=True)[-len(maps):]
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, maps.values(), strict=True))
    kind = AutoModelForImageClassification.from_pretrained(folder, num_labels=3)
    assert kind(images).logits.shape == (2, 3)
assert not any(name.startswith(("modeling_ladder", "ladder_")) for name in sys.modules)
print("same")
"""
    folders = [str(tmp_path / name) for name in ("resnet10t", "vit_tiny_patch16_224")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_a_classifier_that_timm_wrote_gives_its_weights(tmp_path: Path) -> None:
    """As published by timm: a head of 1000 classes and no fields of ours."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = timm.create_model("resnet10t", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    values = {"architecture": "resnet10t.c3_in1k", "num_classes": 1000, "num_features": 512}
    values["pretrained_cfg"] = {"input_size": [3, 176, 176], "num_classes": 1000, "classifier": "fc"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    backbone = load_native_backbone(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got, want = backbone(images).feature_maps, network.forward_intermediates(images, intermediates_only=True)
    assert len(got) == 4 and all(torch.equal(a, b) for a, b in zip(got, want[-4:], strict=True))


def test_stages_of_a_config() -> None:
    found = with_stages(TimmWrapperConfig(architecture="resnet18.a1_in1k", model_args={}))
    assert isinstance(found, TimmStagesConfig)
    assert found.architecture == "resnet18" and found.stage_indices == [1, 2, 3, 4]  # not the stem
    assert with_stages(found) is found
    assert LadderSiameseConfig.byol(backbone_config=found).level_names == ["stage4"]
    assert with_stages({"model_type": "resnet"}) == {"model_type": "resnet"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"architecture": "resnet118"}, "did you mean"),
        ({"architecture": "hf-hub:user/name"}, "architecture must be the name"),
        ({"architecture": "resnet18", "model_args": {"checkpoint_path": "x.pth"}}, "checkpoint_path"),
        ({"architecture": "resnet18", "model_args": {"pretrained_cfg_overlay": "x"}}, "pretrained_cfg_overlay"),
        ({"architecture": "resnet18", "model_args": {"features_only": True}}, "features_only"),
        ({"architecture": "resnet18", "model_args": "x"}, "model_args"),
    ],
)
def test_what_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LadderSiameseConfig(backbone_config={"model_type": "timm_wrapper", **fields})
