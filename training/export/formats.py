"""Writers of the export formats. Each writes the online backbone to a new folder and returns code that loads it."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import named_in_errors, write_text
from ..loading.progress import say
from ..models.published import describe_images
from .keys import PLANES, STEM, NotHeld, check_convertible, detectron2_key, standard_name, torchvision_key
from .timm_families import FAMILIES, TimmModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
ONNX_FILE = "model.onnx"
TOLERANCE = 1e-3


def write_transformers(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write config.json, model.safetensors and preprocessor_config.json of a native transformers backbone."""
    backbone.save_pretrained(folder)
    processor.save_pretrained(folder)
    describe_images(folder, processor)
    return "AutoModel.from_pretrained({folder!r})"


def write_torchvision(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write the state dict of `torchvision.models.resnetNN` without its `fc`."""
    config = backbone.config
    state = _torchvision_state(backbone)
    expansion = 4 if config.layer_type == "bottleneck" else 1
    widths = [width // expansion for width in config.hidden_sizes]
    if tuple(widths) != PLANES or config.embedding_size != STEM or config.num_channels != 3:
        raise NotHeld(
            f"torchvision's ResNet has widths {', '.join(map(str, PLANES))} and 3 channels; this one has "
            f"{', '.join(map(str, widths))} and {config.num_channels}"
        )
    _save_tensors(state, folder / WEIGHTS)
    processor.save_pretrained(folder)
    name = standard_name(config)
    load = "load_state_dict(safetensors.torch.load_file({folder!r} + '/" + WEIGHTS + "'), strict=False)"
    block = "Bottleneck" if expansion == 4 else "BasicBlock"
    maker = f"{name}()" if name else f"ResNet(torchvision.models.resnet.{block}, {list(config.depths)})"
    return f"torchvision.models.{maker}.{load}  # only fc is missing"


def write_timm(backbone: "PreTrainedModel", processor: Any, folder: Path) -> str:
    """Write weights and a config that `timm.create_model("local-dir:FOLDER")` reads."""
    size = processor.crop_size["height"]
    config = backbone.config
    hint = "timm.create_model('local-dir:' + {folder!r}, pretrained=True, num_classes=0)"
    if config.model_type == "timm_wrapper":  # what transformers loads are timm's own files
        write_transformers(backbone, processor, folder)
        return hint
    found = FAMILIES[config.model_type](backbone, size) if config.model_type in FAMILIES else _timm_resnet(backbone)
    size = found.size or size
    _save_tensors(found.state, folder / WEIGHTS)
    settings = {
        "architecture": found.architecture,
        "num_classes": 0,
        "num_features": backbone.channels[-1],
        "model_args": found.arguments,
        "pretrained_cfg": {
            "input_size": [config.num_channels, size, size],
            "interpolation": "bicubic",
            "crop_pct": min(1.0, size / processor.size["shortest_edge"]),
            "mean": list(processor.image_mean),
            "std": list(processor.image_std),
            "num_classes": 0,
            "first_conv": found.first,
            "classifier": found.classifier,
        },
    }
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")
    _check_with_timm(backbone, folder, size)
    return hint + "".join(f"  # {note}" for note in found.notes)


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
        UserError: a package is not installed.
        NotHeld: torch.onnx cannot write the network, or onnxruntime computes something different.
    """
    import torch

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install 'ladder-siamese[onnx]'") from error
    from .onnx_graph import StageOutputs, check_with_onnxruntime, exporter_arguments

    size = processor.crop_size["height"]
    graph = StageOutputs(backbone).eval()
    example = torch.rand(2, backbone.config.num_channels, size, size)
    path, failures = folder / ONNX_FILE, []
    # Some families compute sizes that torch.export can only fix: they are written for images of one size.
    for any_size, any_batch in ((True, True), (False, True), (False, False)):
        arguments = exporter_arguments(graph, any_size=any_size, any_batch=any_batch)
        sizes = "any size" if any_size else f"{size} pixels"
        say(f"tracing the network for images of {sizes} ... (minutes for large ones)")
        try:
            with named_in_errors(path):
                torch.onnx.export(
                    graph,
                    (example,),
                    str(path),
                    input_names=["pixel_values"],
                    output_names=graph.names,
                    verbose=False,
                    **arguments,
                )
            say("comparing the file with the network ...")
            check_with_onnxruntime(path, graph, example, TOLERANCE, any_size=any_size, any_batch=any_batch)
        except OSError:  # a full disk says nothing about the network
            raise
        except Exception as error:  # torch.export and onnxruntime raise errors of many kinds
            said = " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).split())
            failures.append(re.split(r"(?<=[a-z])\.(?: |$)", said, maxsplit=1)[0][:160])  # the first sentence
            continue
        processor.save_pretrained(folder)
        hint = "onnxruntime.InferenceSession({folder!r} + '/" + ONNX_FILE + "')"
        if any_size:
            return hint
        return f"{hint}  # {'images' if any_batch else '2 images'} of {size} x {size} pixels only"
    raise NotHeld(f"this {backbone.config.model_type} cannot be written as ONNX: {failures[-1]}")


WRITERS: dict[str, Callable[["PreTrainedModel", Any, Path], str]] = {
    "transformers": write_transformers,
    "torchvision": write_torchvision,
    "timm": write_timm,
    "detectron2": write_detectron2,
    "onnx": write_onnx,
}


def _timm_resnet(backbone: "PreTrainedModel") -> TimmModel:
    """A ResNet in timm's form."""
    config = backbone.config
    state = _torchvision_state(backbone)
    if config.embedding_size != STEM:
        raise NotHeld(f"timm's ResNet has 64 stem channels, this one {config.embedding_size}")
    name, arguments = standard_name(config), {}
    if name is None:
        expansion = 4 if config.layer_type == "bottleneck" else 1
        name = "resnet50" if config.layer_type == "bottleneck" else "resnet18"
        channels = [width // expansion for width in config.hidden_sizes]
        arguments = {"layers": list(config.depths), "channels": channels}
    return TimmModel(name, arguments, state, "conv1", "fc")


def _check_with_timm(backbone: "PreTrainedModel", folder: Path, size: int) -> bool:
    """Compare the pooled features of timm with those of the backbone; without timm nothing is checked.

    Raises:
        NotHeld: timm cannot load the folder, or computes something different.
    """
    import torch

    try:
        import timm
    except ImportError:
        return False
    say("comparing its features with timm's ...")
    images = torch.rand(2, backbone.config.num_channels, size, size, generator=torch.Generator().manual_seed(0))
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        with torch.inference_mode():
            got, want = model(images), backbone.eval()(images).feature_maps[-1].mean(dim=(2, 3))
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NotHeld(f"timm cannot hold this {backbone.config.model_type}: {reason}") from error
    difference = (got - want).abs().max().item() / max(want.abs().max().item(), 1e-9)
    if not difference <= TOLERANCE:
        raise NotHeld(
            f"timm computes other features than this {backbone.config.model_type} (relative difference "
            f"{difference:.1e})"
        )
    return True


def _torchvision_state(backbone: "PreTrainedModel") -> dict[str, Any]:
    """Rename the backbone's tensors as in torchvision."""
    check_convertible(backbone.config)
    return {torchvision_key(name): tensor for name, tensor in backbone.state_dict().items()}


def _save_tensors(state: dict[str, Any], path: Path) -> None:
    """Write a state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path), metadata={"format": "pt"})
