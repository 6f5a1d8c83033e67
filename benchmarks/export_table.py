"""Which backbone can be exported to which library: every cell is checked by features, or refused in one line.

    python benchmarks/export_table.py [--limit 300]

Each cell is the largest difference between the features of the library that loads the export and those of the backbone,
relative to the largest feature, on random images, or its reason in one line below the table. Tiny networks of each
family are exported; sizes change no name. A cell that takes longer than the limit, in seconds, is stopped and says so.
"""

import argparse
import logging
import pickle
import signal
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import ConvNextConfig, Dinov2Config, PreTrainedConfig, ResNetConfig, SwinConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from ladder_training.errors import UserError
from ladder_training.export.backbone import export
from ladder_training.export.formats import WRITERS
from ladder_training.models.processor import image_processor
from modeling_ladder import load_native_backbone
from modeling_ladder.timm_stages import TimmStagesConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZE = 64


def configs() -> dict[str, PreTrainedConfig]:
    """Family to the config of a tiny backbone."""
    resnet: dict[str, Any] = {"depths": [1, 1, 1, 1], "embedding_size": 64, "out_features": STAGES}
    widths = [64, 128, 256, 512]
    return {
        "resnet (standard widths)": ResNetConfig(layer_type="basic", hidden_sizes=widths, **resnet),
        "resnet (other widths)": ResNetConfig(layer_type="bottleneck", hidden_sizes=[32, 64, 96, 128], **resnet),
        "convnext": ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=STAGES),
        "swin": SwinConfig(
            image_size=SIZE,
            patch_size=2,
            embed_dim=8,
            depths=[1, 1, 2, 1],
            num_heads=[1, 2, 2, 4],
            window_size=4,
            out_features=STAGES,
        ),
        "dinov2": Dinov2Config(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=16,
            out_features=STAGES,
        ),
        "timm/resnet10t": TimmStagesConfig(architecture="resnet10t", out_features=STAGES),
        "timm/vit_tiny_patch16_224": TimmStagesConfig(
            architecture="vit_tiny_patch16_224", out_features=[f"stage{number}" for number in range(1, 13)]
        ),
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


def cell(backbone: Any, source: Path, kind: str, output: Path) -> str:
    """Export a backbone, load it with the library, and compare features; or the reason why not, in one line."""
    try:
        hint = export(str(source), kind, output)
    except UserError as error:
        return str(error)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps = backbone(images).feature_maps
        pooled = maps[-1].mean(dim=(2, 3))
        pairs = _loaded(kind, output, images, list(maps), pooled, backbone)
    if isinstance(pairs, str):
        return pairs
    worst = max(((got - want).abs().max() / want.abs().max()).item() for got, want in pairs)
    note = hint.rpartition("  # ")[2] if "pixels" in hint else ""
    return f"{worst:.0e}" + (f" ({note})" if note else "")


def _loaded(kind: str, output: Path, images: Any, maps: list[Any], pooled: Any, backbone: Any) -> Any:
    """Pairs of features: of the library that loads the export, and of the backbone."""
    if kind == "transformers":
        return list(zip(load_native_backbone(output).eval()(images).feature_maps, maps, strict=True))
    if kind == "timm":
        import timm

        return [(timm.create_model(f"local-dir:{output}", pretrained=True, num_classes=0).eval()(images), pooled)]
    if kind == "torchvision":
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

        config = backbone.config
        model = ResNet(Bottleneck if config.layer_type == "bottleneck" else BasicBlock, list(config.depths)).eval()
        missing = model.load_state_dict(load_file(output / "model.safetensors"), strict=False)
        assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
        model.fc = torch.nn.Identity()
        return [(model(images), pooled)]
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(output / "model.onnx"), providers=["CPUExecutionProvider"])
        found = session.run(None, {"pixel_values": images.numpy()})
        return [(torch.from_numpy(one), want) for one, want in zip(found, [*maps, pooled], strict=True)]
    with (output / "model.pkl").open("rb") as file:  # written by this script a moment ago
        count = len(pickle.load(file)["model"])
    return f"{count} tensors by detectron2's names (its features were not compared: it is not a dependency)"


class TooLong(BaseException):
    """A cell takes too long. No `except Exception` of the libraries may catch it."""


def timed(limit: int, backbone: Any, source: Path, kind: str, output: Path) -> str:
    """`cell`, stopped after a limit in seconds."""

    def stop(number: int, frame: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        return cell(backbone, source, kind, output)
    except TooLong:
        return f"stopped after {limit} s"
    finally:
        signal.alarm(0)


def table(limit: int = 300) -> dict[str, dict[str, str]]:
    """Family to format to cell."""
    rows: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number, (family, config) in enumerate(configs().items()):
            source = Path(name) / f"{number}"
            backbone = make_backbone(config, source)
            rows[family] = {
                kind: timed(limit, backbone, source, kind, Path(name) / f"{number}-{kind}") for kind in WRITERS
            }
    return rows


def main() -> None:
    """Print the table as Markdown; reasons stand below it."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=300, help="seconds that a cell may take")
    rows, reasons = table(parser.parse_args().limit), []
    print("| backbone | " + " | ".join(WRITERS) + " |\n|" + "---|" * (len(WRITERS) + 1))
    for family, cells in rows.items():
        shown = []
        for kind, text in cells.items():
            if not text[0].isdigit() or "tensors" in text:
                reasons.append(f"[{len(reasons) + 1}] {family}, {kind}: {text}")
                text = f"[{len(reasons)}]"
            shown.append(text)
        print(f"| {family} | " + " | ".join(shown) + " |")
    print("\n" + "\n".join(reasons))


if __name__ == "__main__":
    main()
