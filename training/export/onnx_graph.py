"""The graph that is exported to ONNX, and a check that onnxruntime computes the same as PyTorch."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TORCH_EXPORT_SINCE = "2.9"


class StageOutputs(nn.Module):
    """A backbone whose outputs are tensors: the feature map of each stage, then the pooled last one.

    Args:
        backbone: A transformers backbone with all stages in `out_features`.
    """

    def __init__(self, backbone: "PreTrainedModel") -> None:
        super().__init__()
        self.backbone = backbone.eval()
        self.names = [*backbone.config.out_features, "pooler_output"]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Map images (batch, channels, height, width) to each stage's (batch, C, H, W) and the pooled (batch, C)."""
        maps = self.backbone(pixel_values).feature_maps
        return (*maps, maps[-1].mean(dim=(2, 3)))


def exporter_arguments(graph: StageOutputs, *, any_size: bool, any_batch: bool) -> dict[str, Any]:
    """The arguments of `torch.onnx.export` that say which dimensions of the images are free.

    The exporter is torch's own default: from 2.9 on that of `torch.export`. That of 2.6 cannot keep the sizes free, and
    writes truth values where ONNX asks for numbers. So an older torch traces the graph, which silently fixes what
    Python computes: only the comparison with onnxruntime at another size notices that.

    Args:
        graph: The module that is exported.
        any_size: Whether height and width are free.
        any_batch: Whether the number of images is free.

    Raises:
        UserError: torch is older than 2.9, and onnxruntime is not installed.
    """
    free = {0: "batch"} if any_batch else {}
    free |= {2: "height", 3: "width"} if any_size else {}
    if torch.__version__ >= TORCH_EXPORT_SINCE:  # compares as versions, not as texts
        shapes = {place: torch.export.Dim(name) for place, name in free.items()}
        return {"dynamo": True, "external_data": False, "dynamic_shapes": (shapes,) if shapes else None}
    if find_spec("onnxruntime") is None:
        raise UserError(
            f"--format onnx with torch {torch.__version__} needs onnxruntime to check the file "
            f"(or torch {TORCH_EXPORT_SINCE}): pip install onnxruntime"
        )
    axes: dict[str, dict[int, str]] = {"pixel_values": free}
    for name in graph.names:
        map_axes = {2: f"{name}_height", 3: f"{name}_width"} if any_size and name != "pooler_output" else {}
        axes[name] = ({0: "batch"} if any_batch else {}) | map_axes
    return {"dynamo": False, "dynamic_axes": {name: free for name, free in axes.items() if free}}


def check_with_onnxruntime(
    path: Path,
    graph: StageOutputs,
    example: Tensor,
    tolerance: float,
    *,
    any_size: bool = True,
    any_batch: bool = True,
) -> bool:
    """Compare the file with PyTorch, where it may at a batch size and image size other than those of the export.

    Args:
        path: The ONNX file.
        graph: The exported module.
        example: The images (batch, channels, height, width) of the export.
        tolerance: Largest difference allowed, relative to the largest value of an output.
        any_size: Whether the file takes images of any size.
        any_batch: Whether it takes any number of images.

    Returns:
        Whether the file was checked, which needs onnxruntime.

    Raises:
        UserError: an output differs by more than the tolerance.
    """
    try:
        import onnxruntime
    except ImportError:
        return False
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    more = (32, 64) if any_size else (0, 0)
    count = 3 if any_batch else len(example)
    images = torch.rand(count, example.shape[1], example.shape[2] + more[0], example.shape[3] + more[1])
    with torch.inference_mode():
        expected = graph(images)
    outputs = session.run(graph.names, {"pixel_values": images.numpy()})
    for name, want, got in zip(graph.names, expected, outputs, strict=True):
        difference = (torch.from_numpy(got) - want).abs().max().item() / max(want.abs().max().item(), 1e-9)
        if not difference <= tolerance:
            raise UserError(f"the ONNX file gives another {name} than PyTorch (relative difference {difference:.1e})")
    return True
