"""What a person calls the stages of a backbone, with the size of their feature maps."""

import math
from typing import Any

from .run_files import RunFiles
from .text import spoken
from .values import is_number, numbers

FIRST_STRIDE = {"resnet": 4, "convnext": 4, "convnextv2": 4, "swin": 4}
"""Families whose stages halve the map, with the stride of the first one; overridden by the config's patch_size."""
PLAIN = ("vit", "dinov2", "dinov2_with_registers", "beit")
"""Families whose blocks all have one map, of a position per patch."""


def input_size(files: RunFiles) -> int | None:
    """Height and width in pixels of the images that the processor gives the model, if it says so."""
    size = files.preprocessor.get("crop_size") or files.preprocessor.get("size")
    return _positive((size.get("height") or size.get("shortest_edge")) if isinstance(size, dict) else None)


def stage_widths(files: RunFiles) -> dict[str, int]:
    """Channels of each stage, of families whose config says them."""
    config, stages = files.config, files.stages
    widths = numbers(config.get("hidden_sizes"))
    if len(widths) != len(stages) and is_number(config.get("embed_dim")):
        widths = [config["embed_dim"] * 2**place for place in range(len(stages))]
    if len(widths) != len(stages) and is_number(config.get("hidden_size")) and config.get("model_type") in PLAIN:
        widths = [config["hidden_size"]] * len(stages)
    return {name: int(width) for name, width in zip(stages, widths, strict=False)} if len(widths) == len(stages) else {}


def stage_sides(files: RunFiles) -> dict[str, int]:
    """Height and width of each stage's map in positions, for an image of the processor's size; empty if unknown."""
    config, size, kind = files.config, input_size(files), files.config.get("model_type")
    patch = _positive(config.get("patch_size"))
    if size is None:
        return {}
    if kind in PLAIN and patch:
        return dict.fromkeys(files.stages, size // patch)
    if kind not in FIRST_STRIDE:
        return {}
    first = patch or FIRST_STRIDE[str(kind)]
    first *= 2 if config.get("downsample_in_first_stage") is True else 1
    return {name: math.ceil(size / (first * 2**place)) for place, name in enumerate(files.stages)}


def stage_size(files: RunFiles, name: str) -> str:
    """Say the size of a stage's features, such as "24 × 24 positions, 32 channels"; empty if it is not known."""
    side, width = stage_sides(files).get(name), stage_widths(files).get(name)
    known = [f"{side} × {side} positions"] if side else []
    known += [f"{width} channels"] if width else []
    return ", ".join(known)


def named(stage: object) -> str:
    """The name of a stage or level at the beginning of a line: "Stage 2, local"."""
    words = spoken(str(stage))
    return words[:1].upper() + words[1:]


def _positive(value: Any) -> int | None:
    """A whole number above 0, or None."""
    return int(value) if is_number(value) and value >= 1 else None
