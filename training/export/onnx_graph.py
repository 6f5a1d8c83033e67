"""The graph that is exported to ONNX, and a check that onnxruntime computes the same as PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
