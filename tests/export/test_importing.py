"""Weights of other libraries: the same features as there, one line for what is not a plain ResNet."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ladder_training.cli.entry import main
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.export.importing import import_weights
from ladder_training.files import PARTIAL_PREFIX
from ladder_training.models.foreign import SAME_PADDING
from ladder_training.runs.record import RunRecord


def torchvision_resnet(block=Bottleneck) -> ResNet:
    """A shallow ResNet with statistics away from their initial values."""
    torch.manual_seed(0)
    model = ResNet(block, [1, 1, 1, 1], num_classes=3).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
    return model


def pooled(model: ResNet, images: torch.Tensor) -> torch.Tensor:
    model.fc = torch.nn.Identity()
    with torch.inference_mode():
        return model(images)


def imported(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return load_backbone(str(folder))(images)["stage4"].mean(dim=(2, 3))


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("kind", ["torchvision", "timm", "wrapped", "lightly"])
def test_features_are_those_of_the_other_library(kind, block, tmp_path, capsys):
    model, images = torchvision_resnet(block), torch.rand(2, 3, 64, 64)
    state = model.state_dict()
    file = tmp_path / "weights.pth"
    if kind == "timm":
        file = tmp_path / "weights.safetensors"
        save_file(state, str(file))
    elif kind == "wrapped":
        both = {f"module.online.{name}": value for name, value in state.items()}
        both |= {f"module.target.{name}": torch.zeros_like(value) for name, value in state.items()}
        torch.save({"state_dict": both, "epoch": 3}, file)
    elif kind == "lightly":
        body = torch.nn.Sequential(*list(model.children())[:-1])
        lightly = {f"backbone.{name}": value for name, value in body.state_dict().items()}
        lightly |= {f"backbone_momentum.{name}": torch.zeros_like(value) for name, value in body.state_dict().items()}
        torch.save({**lightly, "projection_head.layers.0.weight": torch.zeros(4, 4)}, file)
    else:
        torch.save(state, file)
    assert main(["import", str(file), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "left out" in said and "licence: not known" in said
    torch.testing.assert_close(imported(tmp_path / "out", images), pooled(model, images), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["license"] == "other"


def haiku_names(model: ResNet) -> dict[str, np.ndarray]:
    """The tensors by DeepMind's names, with kernels as height, width, input, output."""
    leaves = {
        "weight": "scale",
        "bias": "offset",
        "running_mean": "~/mean_ema/average",
        "running_var": "~/var_ema/average",
    }
    found = {}
    for name, value in model.state_dict().items():
        *path, leaf = name.split(".")
        if path == ["fc"] or leaf == "num_batches_tracked":
            continue
        if path[0].startswith("layer"):
            start = f"block_group_{int(path[0][-1]) - 1}/~/block_{path[1]}/~/"
            inner = path[2:]
        else:
            start, inner = "", path
        convolution = value.ndim == 4
        if inner[0] == "downsample":
            place = "shortcut_conv" if convolution else "shortcut_batchnorm"
        elif not start:
            place = "initial_conv" if convolution else "initial_batchnorm"
        else:
            place = f"{'conv' if convolution else 'batchnorm'}_{int(inner[0][-1]) - 1}"
        array = value.numpy()
        if convolution:
            found[f"res_net50/~/{start}{place}/w"] = array.transpose(2, 3, 1, 0)
        else:
            found[f"res_net50/~/{start}{place}/{leaves[leaf]}"] = array.reshape(1, 1, 1, -1)
    return found


def test_deepmind_names_are_read_with_their_licence_and_padding(tmp_path, capsys):
    model, images = torchvision_resnet(), torch.rand(2, 3, 64, 64)
    np.savez(tmp_path / "byol.npz", **haiku_names(model))
    assert main(["import", str(tmp_path / "byol.npz"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "licence: cc-by-nc-4.0" in said and SAME_PADDING in said
    # The weights are the same; with transformers' padding, which is torchvision's, the features are torchvision's.
    torch.testing.assert_close(imported(tmp_path / "out", images), pooled(model, images), rtol=1e-5, atol=1e-5)
    assert import_weights(tmp_path / "byol.npz", tmp_path / "mine", licence="mit").licence == "mit"


def test_the_folder_says_where_its_weights_are_from(tmp_path, capsys):
    folder, file = tmp_path / "out", tmp_path / "secret-place" / "byol.npz"
    file.parent.mkdir()
    np.savez(file, **haiku_names(torchvision_resnet()), **{"projector/linear/w": np.zeros((4, 4), np.float32)})
    assert main(["import", str(file), "--output", str(folder)]) == 0
    written = json.loads((folder / "run.json").read_text())
    assert written["status"] == "imported" and written["license"] == "cc-by-nc-4.0"
    assert written["imported"] == {
        "kind": "DeepMind names",
        "file": "byol.npz",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "prefix": "res_net50/~/",
        "left_out": ["projector/linear/w"],
        "padding": "same",
        "notes": [SAME_PADDING, "taken as v1.5: the stride is in the 3x3 convolution, as in torchvision and timm"],
    }
    assert not {"steps", "images_seen", "seconds", "method", "datasets"} & written.keys()
    assert "secret-place" not in (folder / "run.json").read_text()
    assert RunRecord.read(folder).imported == written["imported"]

    data = ["--dataset", "digits", "--image_size", "32", "--no-untrained"]
    assert main(["evaluate", "knn", "--model", str(folder), *data]) == 0
    assert f"next: ladder card {folder}" in capsys.readouterr().out
    assert main(["card", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    card, page = (folder / "README.md").read_text(), (folder / "report.html").read_text()
    assert "license: cc-by-nc-4.0" in card and "## Where the weights are from" in card
    assert "did not finish" not in card and "How it was trained\n" not in card
    for text in (card, page):
        assert "secret-place" not in text and "k nearest neighbours" in text
        for told in ("byol.npz", written["imported"]["sha256"], "TensorFlow", "projector/linear/w"):
            assert told in text.replace("\\_", "_"), told
    assert "cc-by-nc-4.0" in page

    capsys.readouterr()
    assert main(["pretrain", "digits", "--output", str(folder), "--max_steps", "1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert f"--from {folder}" in line


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
    torch.save(torchvision_resnet().state_dict(), tmp_path / "weights.pth")

    def full(path, value):
        raise OSError("no space left")

    monkeypatch.setattr("ladder_training.export.importing.write_record", full)
    with pytest.raises(OSError, match="no space left"):
        import_weights(tmp_path / "weights.pth", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]
    assert not list(tmp_path.rglob(f"{PARTIAL_PREFIX}*"))


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("ran",))


def test_what_is_no_plain_resnet_is_one_line(tmp_path, capsys):
    state = torchvision_resnet().state_dict()
    cases = {
        "code": ({"model": Evil()}, "cannot be read as weights only"),
        "empty": ({"epoch": 3}, "holds no tensors"),
        "other": ({"a.weight": torch.zeros(2)}, "there is no ResNet in this file"),
        "two": ({f"{start}.{name}": value for start in "ab" for name, value in state.items()}, "--prefix a or b"),
        "extra": ({**state, "layer1.0.se.fc1.weight": torch.zeros(2, 2)}, "has an extra layer1.0.se.fc1.weight"),
        "part": ({name: value for name, value in state.items() if name != "bn1.bias"}, "has no bn1.bias"),
    }
    for name, (content, said) in cases.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert main(["import", str(tmp_path / f"{name}.pth"), "--output", str(tmp_path / "out")]) == 2
        captured = capsys.readouterr()
        assert (
            said in captured.err.splitlines()[-1] and len(captured.err.splitlines()) <= 2 and "ran" not in captured.out
        ), name
    assert not (tmp_path / "out").exists()
    assert main(["import", str(tmp_path / "two.pth"), "--prefix", "a", "--output", str(tmp_path / "out")]) == 0
