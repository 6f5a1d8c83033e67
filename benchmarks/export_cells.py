"""Tiny backbones of each family, and the check of one export: what the other library computes from it."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ConvNextConfig, Dinov2Config, PreTrainedConfig, ResNetConfig, SwinConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from ladder_training.errors import UserError
from ladder_training.export.backbone import export
from ladder_training.models.processor import image_processor
from modeling_ladder import load_native_backbone
from modeling_ladder.timm_stages import TimmStagesConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZE = 64


@dataclass(frozen=True)
class Cell:
    """What a cell of the table holds.

    Attributes:
        difference: Largest difference of the features, relative to the largest feature; None where there is a reason.
        text: The reason why not, in one line; or what is to be known about a difference.
    """

    difference: float | None
    text: str = ""


def configs() -> dict[str, Callable[[], PreTrainedConfig]]:
    """Name of a row -> the config of its backbone."""
    resnet: dict[str, Any] = {"embedding_size": 64, "out_features": STAGES}
    widths = [64, 128, 256, 512]
    swin: dict[str, Any] = {"patch_size": 2, "embed_dim": 8, "num_heads": [1, 2, 2, 4], "window_size": 4}
    vit: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 16}
    blocks = [f"stage{number}" for number in range(1, 13)]
    return {
        "resnet (standard widths)": lambda: ResNetConfig(
            layer_type="basic", hidden_sizes=widths, depths=[2, 2, 2, 2], **resnet
        ),
        "resnet (tiny)": lambda: ResNetConfig(
            layer_type="bottleneck", hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 1, 1], **resnet
        ),
        "convnext": lambda: ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=STAGES),
        "swin": lambda: SwinConfig(image_size=SIZE, depths=[1, 1, 2, 1], out_features=STAGES, **swin),
        "dinov2": lambda: Dinov2Config(image_size=SIZE, out_features=STAGES, **vit),
        "timm/resnet18": lambda: TimmStagesConfig(architecture="resnet18", out_features=STAGES),
        "timm/vit_tiny_patch16_224": lambda: TimmStagesConfig(architecture="vit_tiny_patch16_224", out_features=blocks),
    }


def make_backbone(config: PreTrainedConfig, folder: Path, size: int = SIZE) -> Any:
    """Write a backbone whose tensors are all away from their initial values, and return it."""
    torch.manual_seed(0)
    model = MODEL_FOR_BACKBONE_MAPPING[type(config)](config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "layer_scale" in name:
                tensor.uniform_(0.5, 1.0)
            elif tensor.is_floating_point() and tensor.numel() > 1 and "index" not in name:
                tensor.add_(torch.randn_like(tensor) * 0.05)
    model.save_pretrained(folder)
    image_processor(size).save_pretrained(folder)
    return model


def some_images(size: int = SIZE) -> Tensor:
    """Two random images (2, 3, size, size), always the same."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def compared(got: list[Tensor], want: list[Tensor], text: str = "") -> Cell:
    """The cell of two lists of features, which must have the same shapes."""
    for one, other in zip(got, want, strict=True):
        if one.shape != other.shape:
            return Cell(None, f"features of shape {tuple(one.shape)} instead of {tuple(other.shape)}")
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, want, strict=True))
    return Cell(worst, text)


def export_cell(backbone: Any, source: Path, kind: str, output: Path) -> Cell:
    """Export a backbone, load it with the library, and compare features; or the reason why not, in one line."""
    try:
        hint = export(str(source), kind, output)
    except UserError as error:
        return Cell(None, str(error))
    images = some_images()
    with torch.inference_mode():
        maps = list(backbone(images).feature_maps)
        pooled = maps[-1].mean(dim=(2, 3))
        got, want = _LOADED[kind](output, images, backbone), [pooled]
        if kind in ("transformers", "detectron2"):
            want = maps
        elif kind == "onnx":
            want = [*maps, pooled]
        return compared(got, want, hint.rpartition("  # ")[2] if "pixels" in hint else "")


def _transformers(output: Path, images: Tensor, backbone: Any) -> list[Tensor]:
    return list(load_native_backbone(output).eval()(images).feature_maps)


def _timm(output: Path, images: Tensor, backbone: Any) -> list[Tensor]:
    import timm

    return [timm.create_model(f"local-dir:{output}", pretrained=True, num_classes=0).eval()(images)]


def _torchvision(output: Path, images: Tensor, backbone: Any) -> list[Tensor]:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    config = backbone.config
    model = ResNet(Bottleneck if config.layer_type == "bottleneck" else BasicBlock, list(config.depths)).eval()
    missing = model.load_state_dict(load_file(output / "model.safetensors"), strict=False)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    model.fc = nn.Identity()
    return [model(images)]


def _onnx(output: Path, images: Tensor, backbone: Any) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(output / "model.onnx"), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(one) for one in session.run(None, {"pixel_values": images.numpy()})]


def _detectron2(output: Path, images: Tensor, backbone: Any) -> list[Tensor]:
    with (output / "model.pkl").open("rb") as file:  # written by this script a moment ago
        arrays = pickle.load(file)["model"]
    network = DetectronResNet(backbone.config.layer_type, list(backbone.config.depths), arrays).eval()
    return network(images)


_LOADED: dict[str, Callable[[Path, Tensor, Any], list[Tensor]]] = {
    "transformers": _transformers,
    "timm": _timm,
    "torchvision": _torchvision,
    "onnx": _onnx,
    "detectron2": _detectron2,
}


class DetectronResNet(nn.Module):
    """detectron2's ResNet with STRIDE_IN_1X1 false, by its names, out of PyTorch's layers; the sizes are the weights'.

    detectron2 cannot be installed from a registry. This is its `BasicStem`, `BasicBlock` and `BottleneckBlock`
    (detectron2/modeling/backbone/resnet.py), so that the file is checked by what it computes.
    """

    def __init__(self, layer_type: str, depths: list[int], arrays: Mapping[str, Any]) -> None:
        super().__init__()
        self.depths, self.convolutions = depths, 3 if layer_type == "bottleneck" else 2
        self.strided = 2 if layer_type == "bottleneck" else 1  # the convolution that halves a map
        self.arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.used: set[str] = set()

    def forward(self, images: Tensor) -> list[Tensor]:
        """res2 to res5 of images (batch, 3, height, width)."""
        value = nn.functional.max_pool2d(self._layer("stem.conv1", images, 2, 3).relu(), 3, 2, 1)
        maps = []
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                value = self._block(f"res{stage + 2}.{block}", value, 2 if stage and not block else 1)
            maps.append(value)
        left = set(self.arrays) - self.used
        assert not left, f"detectron2 has no place for {sorted(left)[:3]}"
        return maps

    def _block(self, name: str, value: Tensor, stride: int) -> Tensor:
        kept = self._layer(f"{name}.shortcut", value, stride, 0) if f"{name}.shortcut.weight" in self.arrays else value
        for number in range(1, self.convolutions + 1):
            place = f"{name}.conv{number}"
            padding = self.arrays[f"{place}.weight"].shape[-1] // 2
            value = self._layer(place, value, stride if number == self.strided else 1, padding)
            if number < self.convolutions:
                value = value.relu()
        return (value + kept).relu()

    def _layer(self, name: str, value: Tensor, stride: int, padding: int) -> Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        names = [f"{name}.weight", *(f"{name}.norm.{leaf}" for leaf in leaves)]
        self.used.update(names)
        kernel, mean, var, weight, bias = (self.arrays[one] for one in names)
        value = nn.functional.conv2d(value, kernel, None, stride, padding)
        return nn.functional.batch_norm(value, mean, var, weight, bias, False, 0.0, 1e-5)
