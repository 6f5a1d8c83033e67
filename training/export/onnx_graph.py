"""The graph that is exported to ONNX, and the check that onnxruntime computes the same."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StageOutputs(nn.Module):
    """A backbone with plain tensors as outputs: each stage's map, then the pooled last one.

    Args:
        backbone: A transformers backbone whose features are all its stages.
    """

    def __init__(self, backbone: "PreTrainedModel") -> None:
        super().__init__()
        self.backbone = backbone.eval()
        self.names = [*backbone.config.out_features, "pooler_output"]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """(batch, channels, height, width) to each stage's (batch, C, H, W) and the pooled (batch, C)."""
        maps = self.backbone(pixel_values).feature_maps
        return (*maps, maps[-1].mean(dim=(2, 3)))


def check_with_onnxruntime(path: Path, graph: StageOutputs, example: Tensor, tolerance: float) -> bool:
    """Compare the file with PyTorch on a batch and image size that the export has not seen.

    Args:
        path: The ONNX file.
        graph: What was exported.
        example: Images (batch, channels, height, width) as used for the export.
        tolerance: Largest difference allowed, relative to the largest value of an output.

    Returns:
        Whether onnxruntime is installed, so that the file was checked.

    Raises:
        UserError: an output differs by more.
    """
    try:
        import onnxruntime
    except ImportError:
        return False
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = torch.rand(3, example.shape[1], example.shape[2] + 32, example.shape[3] + 64)
    with torch.inference_mode():
        expected = graph(images)
    found = session.run(graph.names, {"pixel_values": images.numpy()})
    for name, want, got in zip(graph.names, expected, found, strict=True):
        difference = (torch.from_numpy(got) - want).abs().max().item() / max(want.abs().max().item(), 1e-9)
        if not difference <= tolerance:
            raise UserError(f"the ONNX file gives another {name} than PyTorch (relative difference {difference:.1e})")
    return True
