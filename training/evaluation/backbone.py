"""Load any model that a user may name as a module that returns the feature maps of its backbone's stages."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeling_ladder.conversion import stage_names
from modeling_ladder.timm_configs import with_stages

from ..config.image_defaults import CROP_FRACTION, DEFAULT_IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
from ..errors import UserError
from ..images.value_range import ValueRange, check_range
from ..models.foreign import SAME
from ..models.processor import image_processor, processor_of
from ..models.reference import load_model, run_around
from ..models.same_padding import pad_as_tensorflow
from ..runs.record import RunRecord


class StageFeatures(nn.Module):
    """A transformers backbone that returns the feature maps of its stages by name.

    Args:
        backbone: Any transformers backbone; its `out_features` are set to `stages`.
        stages: Names of the stages to return; default: all but the stem.
    """

    def __init__(self, backbone: nn.Module, stages: tuple[str, ...] | None = None) -> None:
        super().__init__()
        known = stage_names(backbone.config)
        unknown = [name for name in stages or () if name not in known]
        if unknown:
            raise UserError(f"the backbone has no stage {', '.join(unknown)}; its stages are {', '.join(known)}")
        self.stages = [name for name in known if stages is None or name in stages]
        native: Any = backbone
        native.out_features = self.stages
        self.backbone = backbone
        self._widths: dict[str, int] = native.out_feature_channels

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Stage name to (batch, channels, height, width) for images (batch, 3, height, width), first stage first."""
        maps = self.backbone(pixel_values=pixel_values, output_hidden_states=False, return_dict=True).feature_maps
        return dict(zip(self.stages, maps, strict=True))

    @property
    def channels(self) -> list[int]:
        """Channels of each stage."""
        return [self._widths[name] for name in self.stages]

    @torch.no_grad()
    def strides(self, size: int = 256) -> list[int]:
        """Stride of each stage in image pixels, measured on an empty image of `size` pixels."""
        training = self.training
        parameter = next(self.parameters())
        maps = self.eval()(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
        self.train(training)
        return [round(size / feature_map.shape[-1]) for feature_map in maps.values()]


@dataclass(frozen=True)
class ImageSettings:
    """How images are prepared for a network.

    Attributes:
        size: Height and width in pixels.
        crop_fraction: Share of the resized shorter side that the centre crop keeps.
        mean: Per channel, of pixels in [0, 1].
        std: Standard deviation per channel.
        value_range: The stored values that become black and white, in images of more than 8 bits; None takes the range
            of their type.
    """

    size: int = DEFAULT_IMAGE_SIZE
    crop_fraction: float = CROP_FRACTION
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    value_range: ValueRange | None = None


def load_backbone(
    reference: Any, device: torch.device | str = "cpu", *, trained_padding: bool = False
) -> StageFeatures:
    """Load the online backbone of any model that this package writes or reads.

    Args:
        reference: A run's folder, its `checkpoint-N` or `pretraining`, an exported folder, a Hub name, or a loaded
            model (Ladder, or any transformers backbone, base model or classifier with a backbone class). A loaded
            model is copied and never changed.
        device: Where the backbone is put.
        trained_padding: Pad as the network was trained, also where transformers' class cannot: of weights that `ladder
            import` took from a network with TensorFlow's SAME padding. For frozen features only: what is trained
            further and saved must be what transformers computes.

    Returns:
        The backbone in eval mode, in float32.

    Raises:
        UserError: there is no such model, or it has no feature maps per stage.
    """
    if isinstance(reference, str | os.PathLike):
        backbone = load_model(str(reference)).backbone
        if trained_padding and padding_of(reference) == SAME:
            pad_as_tensorflow(backbone)
    elif isinstance(reference, StageFeatures):
        backbone = copy.deepcopy(reference.backbone)
    elif isinstance(reference, nn.Module):
        backbone = _taken_from(reference)
    else:
        raise UserError(f"a model must be a folder, a Hub name or a loaded model, not {type(reference).__name__}")
    features = StageFeatures(backbone).to(device=device, dtype=torch.float32).eval()
    if torch.device(device).type == "cuda":
        features.to(memory_format=torch.channels_last)
    return features.requires_grad_(False)


def padding_notes(reference: Any) -> list[str]:
    """What a reader of frozen features must know of their padding; see `trained_padding` of `load_backbone`."""
    if padding_of(reference) != SAME:
        return []
    return ["padded as TensorFlow's SAME does, as the network was trained; transformers' class pads otherwise"]


def padding_of(reference: Any) -> str | None:
    """The padding that imported weights were trained with; None for every other model."""
    record = RunRecord.read_beside_weights(reference) if isinstance(reference, str | os.PathLike) else None
    return record.imported.get("padding") if record is not None and record.imported else None


def model_name(reference: Any) -> str:
    """The name of a model in a result."""
    if isinstance(reference, str | os.PathLike):
        return str(reference)
    if isinstance(reference, StageFeatures):
        reference = reference.backbone
    return getattr(reference, "name_or_path", "") or type(reference).__name__


def default_output(reference: Any) -> Path | None:
    """Find the run's folder of a model: DIR for DIR, DIR/checkpoint-N and DIR/pretraining, None for anything else."""
    if not isinstance(reference, str | os.PathLike) or not Path(reference).is_dir():
        return None
    folder = Path(reference)
    return run_around(folder) or folder


def load_image_settings(
    reference: Any,
    size: int | None = None,
    crop_fraction: float | None = None,
    value_range: ValueRange | None = None,
) -> ImageSettings:
    """Read the image settings from the preprocessor_config.json of a model or its run; default: the package's own.

    Args:
        reference: As in `load_backbone`; a loaded model has no file.
        size: Replaces the size in the file.
        crop_fraction: Replaces the crop in the file.
        value_range: Replaces the range of values (`image_range`) that the model's run was trained with.

    Raises:
        UserError: the file exists and its values make no sense.
    """
    if isinstance(reference, str | os.PathLike):
        processor = processor_of(str(reference), size)
    else:
        processor = image_processor(size or DEFAULT_IMAGE_SIZE)
    side, shorter = processor.crop_size["height"], processor.size["shortest_edge"]
    return ImageSettings(
        int(side),
        crop_fraction or min(1.0, side / shorter),
        tuple(processor.image_mean),
        tuple(processor.image_std),
        value_range or _trained_range(reference),
    )


def _trained_range(reference: Any) -> ValueRange | None:
    """The range of values that a run on this machine was trained with."""
    folder = default_output(reference)
    record = None if folder is None else RunRecord.read_beside_weights(folder)
    given = None if record is None else record.recipe.values.get("image_range")
    return None if given is None else check_range(given, f"image_range of {folder}")


def _taken_from(model: nn.Module) -> nn.Module:
    """Copy the backbone of a loaded model."""
    from transformers.backbone_utils import BackboneMixin
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    while not isinstance(model, BackboneMixin) or isinstance(getattr(model, "backbone", None), BackboneMixin):
        inner = getattr(model, "backbone", None) or getattr(model, "module", None)
        if inner is None:
            break
        model = inner
    if isinstance(model, BackboneMixin):
        return copy.deepcopy(model)
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) == "timm_wrapper":
        config = with_stages(config)
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise UserError(f"{type(model).__name__} gives no feature maps per stage; use a transformers backbone")
    backbone = MODEL_FOR_BACKBONE_MAPPING[type(config)](copy.deepcopy(config))
    prefix, own = f"{model.base_model_prefix}.", backbone.state_dict()
    state = {name if name in own else name.removeprefix(prefix): tensor for name, tensor in model.state_dict().items()}
    missing = backbone.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise UserError(f"{type(model).__name__} lacks weights of its backbone, such as {missing[0]}")
    return backbone
