"""Writers of the export formats. Each writes the online backbone to a new folder and returns code that loads it."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import write_text
from .keys import check_convertible, detectron2_key, standard_name, torchvision_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
ONNX_FILE = "model.onnx"
ONNX_TOLERANCE = 1e-3


def write_transformers(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write config.json, model.safetensors and preprocessor_config.json of a native transformers backbone."""
    backbone.save_pretrained(folder)
    processor.save_pretrained(folder)
    return "AutoModel.from_pretrained({folder!r})"


def write_torchvision(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write the state dict of `torchvision.models.resnetNN` without its `fc`."""
    _save_tensors(_torchvision_state(backbone), folder / WEIGHTS)
    processor.save_pretrained(folder)
    name = standard_name(backbone.config)
    load = "load_state_dict(safetensors.torch.load_file({folder!r} + '/" + WEIGHTS + "'), strict=False)"
    maker = f"torchvision.models.{name}()" if name else "a torchvision.models.ResNet of these depths and widths"
    return f"{maker}.{load}  # only fc is missing"


def write_timm(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write weights and a config that `timm.create_model("local-dir:FOLDER")` reads."""
    config = backbone.config
    if config.embedding_size != 64:
        raise UserError(f"timm's ResNet has 64 stem channels, this one {config.embedding_size}; use transformers")
    _save_tensors(_torchvision_state(backbone), folder / WEIGHTS)
    name = standard_name(config)
    arguments = {}
    if name is None:
        expansion = 4 if config.layer_type == "bottleneck" else 1
        name = "resnet50" if config.layer_type == "bottleneck" else "resnet18"
        channels = [width // expansion for width in config.hidden_sizes]
        arguments = {"layers": list(config.depths), "channels": channels}
    size = processor.crop_size["height"]
    settings = {
        "architecture": name,
        "num_classes": 0,
        "num_features": config.hidden_sizes[-1],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [config.num_channels, size, size],
            "interpolation": "bicubic",
            "crop_pct": size / processor.size["shortest_edge"],
            "mean": list(processor.image_mean),
            "std": list(processor.image_std),
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")
    return "timm.create_model('local-dir:' + {folder!r}, pretrained=True, num_classes=0)"


def write_detectron2(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write detectron2 weights (a pickle of numpy arrays, which its loader matches by name) and settings."""
    config = backbone.config
    check_convertible(config)
    state = {
        key: tensor.numpy()
        for name, tensor in backbone.state_dict().items()
        if (key := detectron2_key(name)) is not None
    }
    content = {"model": state, "__author__": "ladder-siamese", "matching_heuristics": True}
    with (folder / "model.pkl").open("wb") as file:
        pickle.dump(content, file, protocol=4)
    depth = (standard_name(config) or "").removeprefix("resnet")
    mean, std = ([round(255 * value, 4) for value in values] for values in (processor.image_mean, processor.image_std))
    lines = [
        "# Settings under which detectron2 computes what this backbone was trained to compute.",
        "MODEL:",
        "  WEIGHTS: model.pkl",
        f"  PIXEL_MEAN: {mean}",
        f"  PIXEL_STD: {std}",
        "  RESNETS:",
        *([f"    DEPTH: {depth}"] if depth else []),
        "    STRIDE_IN_1X1: false",
        "    NORM: SyncBN",
        f"    RES2_OUT_CHANNELS: {config.hidden_sizes[0]}",
        f"    STEM_OUT_CHANNELS: {config.embedding_size}",
        "  BACKBONE:",
        "    FREEZE_AT: 0",
        "INPUT:",
        "  FORMAT: RGB",
    ]
    write_text(folder / "config.yaml", "\n".join(lines) + "\n")
    return "cfg.merge_from_file({folder!r} + '/config.yaml'); cfg.MODEL.WEIGHTS = {folder!r} + '/model.pkl'"


def write_onnx(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write an ONNX graph from `pixel_values` (batch, channels, height, width) to every stage and the pooled output.

    All dimensions but the channels are dynamic.

    Raises:
        UserError: a package is not installed, or onnxruntime computes something different.
    """
    import torch

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install 'ladder-siamese[onnx]'") from error
    from .onnx_graph import StageOutputs, check_with_onnxruntime

    size = processor.crop_size["height"]
    graph = StageOutputs(backbone).eval()
    example = torch.rand(2, backbone.config.num_channels, size, size)
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    path = folder / ONNX_FILE
    torch.onnx.export(
        graph,
        (example,),
        str(path),
        input_names=["pixel_values"],
        output_names=graph.names,
        dynamic_shapes=(free,),
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    check_with_onnxruntime(path, graph, example, ONNX_TOLERANCE)
    processor.save_pretrained(folder)
    return "onnxruntime.InferenceSession({folder!r} + '/" + ONNX_FILE + "')"


WRITERS: dict[str, Callable[["PreTrainedModel", Any, Path], str]] = {
    "transformers": write_transformers,
    "torchvision": write_torchvision,
    "timm": write_timm,
    "detectron2": write_detectron2,
    "onnx": write_onnx,
}


def _torchvision_state(backbone: "PreTrainedModel") -> dict[str, Any]:
    """Rename the backbone's tensors as in torchvision."""
    check_convertible(backbone.config)
    return {torchvision_key(name): tensor for name, tensor in backbone.state_dict().items()}


def _save_tensors(state: dict[str, Any], path: Path) -> None:
    """Write a state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path), metadata={"format": "pt"})
