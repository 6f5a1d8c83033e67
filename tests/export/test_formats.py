"""Exported backbones compute what the online network computes, in the library that they are exported for."""

import errno
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.paths import ROOT
from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.export.backbone import export
from ladder_training.export.keys import detectron2_key
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining, LadderSiameseModel, native_backbone

HEADS = {"projection_hidden_size": 16, "projection_size": 8, "local_grid_size": 2}


def resnet(layer_type: str, depths: list[int], widths: list[int], stem: int = 64) -> dict:
    """A ResNet's config as a dictionary."""
    return {
        "model_type": "resnet",
        "layer_type": layer_type,
        "depths": depths,
        "hidden_sizes": widths,
        "embedding_size": stem,
    }


SMALL = resnet("bottleneck", [1, 2, 1, 1], [32, 64, 96, 128])
RESNET18 = resnet("basic", [2, 2, 2, 2], [64, 128, 256, 512])


def save_checkpoint(folder: Path, backbone: dict) -> Path:
    """A pretraining checkpoint whose online network has every tensor away from its initial value."""
    torch.manual_seed(0)
    model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone, **HEADS))
    with torch.no_grad():
        for name, tensor in model.backbone.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("normalization.weight"):
                # Small enough that features are of the order of 1 and 1e-5 is a fair tolerance.
                tensor.uniform_(0.2, 0.6)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("resnet18"), RESNET18)


def online_features(checkpoint: Path, images: torch.Tensor) -> list[torch.Tensor]:
    """The stages' maps and the pooled features of the online network."""
    model = LadderSiameseModel.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        maps = list(model.feature_maps(images).values())
        return [*maps, model(images).pooler_output]


WITHOUT_PACKAGE = """
import sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_ladder", "ladder_training", "ladder_model_cards"):
            raise ImportError(name + " is not to be imported")

sys.meta_path.insert(0, Blocked())
try:
    import modeling_ladder
except ImportError:
    pass
else:
    raise SystemExit("the package is not blocked")
import torch
from PIL import Image
from transformers import AutoModel, ResNetBackbone, ResNetForImageClassification, pipeline

folder, file = sys.argv[1:]
images = torch.load(file)
with torch.inference_mode():
    auto = AutoModel.from_pretrained(folder).eval()(images, output_hidden_states=True)
    maps = ResNetBackbone.from_pretrained(folder).eval()(images).feature_maps
    classifier = ResNetForImageClassification.from_pretrained(folder, num_labels=3).eval()
    classified = classifier.resnet(images).pooler_output
    assert classifier(images).logits.shape == (len(images), 3)
extractor = pipeline("image-feature-extraction", model=folder, device="cpu")
picture = Image.new("RGB", (40, 50), (200, 30, 90))
piped = torch.tensor(extractor(picture))
with torch.inference_mode():
    wanted = AutoModel.from_pretrained(folder).eval()(**extractor.image_processor(picture, return_tensors="pt"))
torch.testing.assert_close(piped, wanted.last_hidden_state, rtol=0, atol=1e-6)
torch.save([list(auto.hidden_states[1:]), auto.pooler_output.flatten(1), list(maps), classified.flatten(1)], file)
"""


def test_native_backbone_needs_neither_package_nor_remote_code(small: Path, tmp_path: Path) -> None:
    export(str(small), "transformers", tmp_path / "out")
    images = torch.randn(2, 3, 64, 96)
    torch.save(images, tmp_path / "tensors.pt")
    code = [sys.executable, "-c", WITHOUT_PACKAGE, str(tmp_path / "out"), str(tmp_path / "tensors.pt")]
    result = subprocess.run(code, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    hidden, pooled, maps, classified = torch.load(tmp_path / "tensors.pt")
    *expected_maps, expected_pool = online_features(small, images)
    assert len(hidden) == len(maps) == len(expected_maps) == 4
    for found in (hidden, maps):
        for one, expected in zip(found, expected_maps, strict=True):
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, expected_pool, rtol=0, atol=1e-5)
    torch.testing.assert_close(classified, expected_pool, rtol=0, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "exported.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_it_is_the_online_network_that_is_exported(small: Path, tmp_path: Path) -> None:
    export(str(small), "transformers", tmp_path / "out")
    exported, checkpoint = load_file(tmp_path / "out/model.safetensors"), load_file(small / "model.safetensors")
    for name, tensor in exported.items():
        assert torch.equal(tensor, checkpoint[f"backbone.{name}"])
    moved = "embedder.embedder.normalization.running_mean"
    assert not torch.equal(exported[moved], checkpoint[f"target.backbone.{moved}"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_loads_all_but_fc(name: str, resnet18: Path, tmp_path: Path) -> None:
    import torchvision

    checkpoint = resnet18
    if name == "resnet50":
        backbone = resnet("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048])
        checkpoint = save_checkpoint(tmp_path / "r50", backbone)
    export(str(checkpoint), "torchvision", tmp_path / "out")
    model = getattr(torchvision.models, name)().eval()
    loading = model.load_state_dict(load_file(tmp_path / "out/model.safetensors"), strict=False)
    assert loading.missing_keys == ["fc.weight", "fc.bias"]
    assert loading.unexpected_keys == []
    model.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), online_features(checkpoint, images)[-1], rtol=1e-5, atol=1e-5)


def test_timm_loads_the_folder(small: Path, resnet18: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is installed with the dev extra")
    images = torch.randn(2, 3, 64, 96)
    for checkpoint in (small, resnet18):
        output = tmp_path / checkpoint.name
        export(str(checkpoint), "timm", output, image_size=64)
        model = timm.create_model(f"local-dir:{output}", pretrained=True, num_classes=0).eval()
        with torch.inference_mode():
            torch.testing.assert_close(model(images), online_features(checkpoint, images)[-1], rtol=1e-5, atol=1e-5)
        assert timm.data.resolve_model_data_config(model)["input_size"] == [3, 64, 64]


def test_torchvision_is_refused_where_its_class_cannot_hold_the_widths(small: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has widths 64, 128, 256, 512 and 3 channels; this one has 8, 16, 24, 32 and 3"
    ):
        export(str(small), "torchvision", tmp_path / "out")
    other = save_checkpoint(tmp_path / "other", resnet("basic", [1, 1, 1, 1], [64, 128, 256, 512]))
    hint = export(str(other), "torchvision", tmp_path / "out")
    assert hint.startswith("torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])")
    import safetensors.torch
    import torchvision

    loaded = eval(hint.partition("  #")[0], {"torchvision": torchvision, "safetensors": safetensors})  # our own line
    assert loaded.missing_keys == ["fc.weight", "fc.bias"] and loaded.unexpected_keys == []


@pytest.mark.parametrize("family", ["convnext", "swin", "dinov2"])
def test_timm_computes_the_features_of_other_families(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm", reason="timm is installed with the dev extra")
    path = ROOT / "benchmarks" / "export_cells.py"
    spec = importlib.util.spec_from_file_location("export_cells", path)
    cells = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "export_cells", cells)  # dataclasses look their module up
    spec.loader.exec_module(cells)
    backbone = cells.make_backbone(cells.configs()[family](), tmp_path / "model")
    for kind in ("transformers", "timm"):
        cell = cells.export_cell(backbone, tmp_path / "model", kind, tmp_path / kind)
        assert cell.difference <= 1e-5, cell.text
    cell = cells.export_cell(backbone, tmp_path / "model", "torchvision", tmp_path / "out")
    assert cell.difference is None and "ResNets only" in cell.text
    assert not (tmp_path / "out").exists()
    # A tensor that is not moved to the right place is noticed, and nothing is written.
    with torch.no_grad():
        next(p for name, p in backbone.named_parameters() if p.ndim > 1).mul_(3)
    assert cells.export_cell(backbone, tmp_path / "model", "timm", tmp_path / "timm").difference > 1e-3


def test_buffers_that_are_not_saved_are_copied_to_a_native_backbone() -> None:
    from helpers.families import tiny_family

    swin = tiny_family("swin")
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        for one, other in zip(native_backbone(swin)(images).feature_maps, swin(images).feature_maps, strict=True):
            torch.testing.assert_close(one, other)


def test_detectron2_file_has_its_names_and_only_numpy(small: Path, tmp_path: Path) -> None:
    export(str(small), "detectron2", tmp_path / "out")

    class NumpyOnly(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            assert module.split(".")[0] == "numpy", f"{module}.{name} needs more than numpy"
            return super().find_class(module, name)

    with (tmp_path / "out/model.pkl").open("rb") as file:
        content = NumpyOnly(file).load()
    assert content["matching_heuristics"] is True
    weights = content["model"]
    # Names written out from detectron2's ResNet: BasicStem, BottleneckBlock with `shortcut`, norms below convolutions.
    expected = {"stem.conv1.weight"} | {
        f"stem.conv1.norm.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")
    }
    for stage, depth in zip((2, 3, 4, 5), SMALL["depths"], strict=True):
        for layer in range(depth):
            for part in ["conv1", "conv2", "conv3"] + (["shortcut"] if layer == 0 else []):
                expected.add(f"res{stage}.{layer}.{part}.weight")
                expected |= {
                    f"res{stage}.{layer}.{part}.norm.{leaf}"
                    for leaf in ("weight", "bias", "running_mean", "running_var")
                }
    assert set(weights) == expected
    state = load_file(small / "model.safetensors")
    place = "encoder.stages.1.layers.1.layer.2.normalization.running_var"
    assert detectron2_key(place) == "res3.1.conv3.norm.running_var"
    np.testing.assert_array_equal(weights["res3.1.conv3.norm.running_var"], state[f"backbone.{place}"].numpy())
    settings = (tmp_path / "out/config.yaml").read_text()
    assert "STRIDE_IN_1X1: false" in settings
    assert "FORMAT: RGB" in settings


def test_onnx_gives_every_stage_at_any_size(small: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is installed with the dev extra")
    export(str(small), "onnx", tmp_path / "out", image_size=64)
    session = runtime.InferenceSession(str(tmp_path / "out/model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "pooler_output",
    ]
    images = torch.randn(1, 3, 96, 128)
    found = session.run(None, {"pixel_values": images.numpy()})
    for one, expected in zip(found, online_features(small, images), strict=True):
        np.testing.assert_allclose(one, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_onnx_of_an_older_torch_is_not_written_unchecked(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its exporter fixes sizes silently."""
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.8.0"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(small), "--format", "onnx", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ladder: error: --format onnx with torch 2.8.0 needs onnxruntime")
    assert "(or torch 2.9)" in error
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_not_taken_for_a_network_that_onnx_cannot_hold(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torch.onnx.export", full)
    assert main(["export", str(small), "--format", "onnx", "--output", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"ladder: error: \S+: No space left on device; free space \(or inodes: .*\) there", last)
    assert str(tmp_path / "out") in last
    assert not (tmp_path / "out").exists()


def test_onnx_without_its_packages_is_one_line(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(small), "--format", "onnx", "--output", str(tmp_path / "out")]) == 2
    *doing, error = capsys.readouterr().err.splitlines()
    assert error.startswith("ladder: error: --format onnx needs onnx")
    assert all(line.endswith(" ...") for line in doing)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"downsample_in_bottleneck": True}, "downsample_in_bottleneck"), ({"hidden_act": "gelu"}, "gelu")],
)
def test_what_torchvision_cannot_compute_is_refused(change: dict, named: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", {**SMALL, **change})
    with pytest.raises(UserError, match=named):
        export(str(checkpoint), "torchvision", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_mistakes_of_the_command_line(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("not an export")
    cases = [
        (["export", str(small), "--format", "torchvison", "--output", "x"], "did you mean torchvision?"),
        (["export", str(tmp_path / "none"), "--output", str(tmp_path / "x")], "there is no folder"),
        (["export", str(tmp_path), "--output", str(tmp_path / "x")], "holds no model"),
        (["export", str(small), "--output", str(tmp_path / "full")], "not empty"),
        (["export", str(small)], "--output is needed"),
    ]
    for words, message in cases:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("ladder: error: ")
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_saved_processor_travels_with_the_weights(small: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    export(str(small), "transformers", tmp_path / "first", image_size=48)
    export(str(tmp_path / "first"), "transformers", tmp_path / "second")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "second")
    assert dict(processor.crop_size) == {"height": 48, "width": 48}
    assert tuple(processor.image_mean) == (0.485, 0.456, 0.406)
    # Not transformers' default of ResNet, which is 384 pixels and a mean of 0.5.
    assert dict(processor.size) == {"shortest_edge": 48}
