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


def check_with_onnxruntime(path: Path, graph: StageOutputs, example: Tensor, tolerance: float) -> bool:
    """Compare the file with PyTorch at a batch size and image size other than those of the export.

    Args:
        path: The ONNX file.
        graph: The exported module.
        example: The images (batch, channels, height, width) of the export.
        tolerance: Largest difference allowed, relative to the largest value of an output.

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
    images = torch.rand(3, example.shape[1], example.shape[2] + 32, example.shape[3] + 64)
    with torch.inference_mode():
        expected = graph(images)
    outputs = session.run(graph.names, {"pixel_values": images.numpy()})
    for name, want, got in zip(graph.names, expected, outputs, strict=True):
        difference = (torch.from_numpy(got) - want).abs().max().item() / max(want.abs().max().item(), 1e-9)
        if not difference <= tolerance:
            raise UserError(f"the ONNX file gives another {name} than PyTorch (relative difference {difference:.1e})")
    return True
