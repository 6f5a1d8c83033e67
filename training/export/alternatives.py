"""Which formats hold a backbone that another one refuses; only such formats are recommended."""

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..loading.progress import say
from .formats import write_timm
from .keys import NotHeld
from .timm_families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ONNX = ("resnet", "convnext", "dinov2")
"""Families that torch.onnx writes: the rows of benchmarks/export_table.py and tests/export/test_alternatives.py."""
_ONNX_OF_TIMM = ("resnet", "vit_")
"""Beginnings of the names of timm's networks that it writes."""


def formats_that_hold(backbone: "PreTrainedModel", processor: Any, refused: str) -> list[str]:
    """List the formats besides the refused one that hold a backbone with its configuration.

    timm is tried: the weights are written to a temporary folder and its features compared. ONNX takes too long for
    that, so it is named for families of which it is known.

    Args:
        backbone: The native backbone.
        processor: Its image processor, whose size some formats fix.
        refused: The format that does not hold it.
    """
    config = backbone.config
    formats = []
    if refused != "timm" and _timm_holds(backbone, processor):
        formats.append("timm")
    formats.append("transformers")
    if refused != "onnx" and _onnx_holds(config):
        formats.append("onnx")
    return formats


def _timm_holds(backbone: "PreTrainedModel", processor: Any) -> bool:
    """Whether timm computes the features of a backbone. Without timm only what is the same network there counts."""
    kind = backbone.config.model_type
    if kind not in (*FAMILIES, "resnet", "timm_wrapper"):
        return False
    if kind in FAMILIES and importlib.util.find_spec("timm") is None:
        return False
    say("looking for a format that holds this backbone ...")
    with tempfile.TemporaryDirectory(prefix="ladder-export-") as folder:
        try:
            write_timm(backbone, processor, Path(folder))
        except NotHeld:
            return False
    return True


def _onnx_holds(config: Any) -> bool:
    """Whether torch.onnx is known to write a backbone of this family."""
    if config.model_type == "timm_wrapper":
        return str(config.architecture).startswith(_ONNX_OF_TIMM)
    return config.model_type in _ONNX
