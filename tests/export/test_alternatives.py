"""A refused export recommends only formats that hold this very backbone, with its configuration and image size."""

from pathlib import Path
from typing import Any

import pytest
from transformers import ConvNextConfig, Dinov2Config, PreTrainedConfig, ResNetConfig, SwinConfig, Swinv2Config

from helpers.scripts import loaded_script
from ladder_training.errors import UserError
from ladder_training.export import alternatives
from ladder_training.export.backbone import export

with loaded_script("benchmarks/export_cells.py") as script:
    make_backbone = script.make_backbone

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZE = 64


def resnet(**fields: Any) -> ResNetConfig:
    sizes: dict[str, Any] = {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "out_features": STAGES}
    return ResNetConfig(**{**sizes, **fields})


def swin(kind: Any = SwinConfig, **fields: Any) -> PreTrainedConfig:
    sizes: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "image_size": SIZE}
    return kind(out_features=STAGES, **{**sizes, **fields})


def dinov2(**fields: Any) -> Dinov2Config:
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 16}
    return Dinov2Config(image_size=SIZE, out_features=STAGES, **{**sizes, **fields})


CASES = {
    # timm makes its windows smaller where a map is smaller than one; transformers fills the map up.
    "swin, maps smaller than its windows": (swin(window_size=7), "detectron2", "transformers"),
    "swin": (swin(window_size=4, patch_size=2), "detectron2", "timm or transformers"),
    "swin with places": (
        swin(window_size=4, patch_size=2, use_absolute_embeddings=True),
        "timm",
        "transformers",
    ),
    "swin v2": (swin(Swinv2Config, window_size=4, patch_size=2), "torchvision", "transformers"),
    "convnext of another patch": (
        ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], patch_size=2, out_features=STAGES),
        "torchvision",
        "transformers or onnx",
    ),
    "dinov2": (dinov2(), "detectron2", "timm or transformers or onnx"),
    "dinov2 with gates": (dinov2(use_swiglu_ffn=True), "timm", "transformers or onnx"),
    "resnet": (resnet(), "torchvision", "timm or transformers or onnx"),
    "resnet of a small stem": (resnet(embedding_size=16), "torchvision", "transformers or onnx"),
    "resnet of one channel": (resnet(num_channels=1), "torchvision", "timm or transformers or onnx"),
    "resnet that halves at once": (resnet(downsample_in_first_stage=True), "detectron2", "transformers or onnx"),
    "resnet of another activation": (resnet(hidden_act="gelu"), "timm", "transformers or onnx"),
}


def refused(name: str, folder: Path) -> list[str]:
    """Write the backbone of a case, export it to the format that refuses it, and return the formats recommended."""
    pytest.importorskip("timm", reason="timm is installed with the dev extra")
    config, kind, expected = CASES[name]
    make_backbone(config, folder / "model", SIZE)
    with pytest.raises(UserError) as raised:
        export(str(folder / "model"), kind, folder / "refused")
    reason, _, found = str(raised.value).rpartition("; use ")
    assert found == expected and reason and "\n" not in reason
    assert not (folder / "refused").exists()
    return found.split(" or ")


@pytest.mark.parametrize("name", CASES)
def test_only_formats_that_hold_the_backbone_are_recommended(name: str, tmp_path: Path) -> None:
    for kind in refused(name, tmp_path):
        if kind != "onnx":
            export(str(tmp_path / "model"), kind, tmp_path / kind)  # which compares features with timm's


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "onnx" in case[2]])
def test_onnx_is_written_where_it_is_recommended(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is installed with the dev extra")
    refused(name, tmp_path)
    export(str(tmp_path / "model"), "onnx", tmp_path / "onnx")


def test_without_timm_only_what_is_the_same_network_there_is_recommended(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(alternatives.importlib.util, "find_spec", lambda name: None)
    config, kind, _ = CASES["dinov2"]
    make_backbone(config, tmp_path / "model", SIZE)
    with pytest.raises(UserError, match=r"; use transformers or onnx$"):
        export(str(tmp_path / "model"), kind, tmp_path / "out")
