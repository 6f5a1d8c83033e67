"""Networks of timm as backbones with named stages.

transformers 5.24 has two wrappers of timm. Its `TimmBackbone` cannot load what it saved: `from_pretrained` takes the
folder for the name of a network (`TimmBackboneConfig(backbone=pretrained_model_name_or_path, ...)` and
`_from_config(config, pretrained=True)` in models/timm_backbone/modeling_timm_backbone.py), and its `_init_weights` sets
the statistics of all batch norms back, also of weights that timm has just loaded. Its `TimmWrapperModel` loads timm's
own files, but returns no feature maps by stage. So this backbone holds the tensors of a `TimmWrapperModel`, gives the
maps of timm's `forward_intermediates`, and saves timm's own files, which `AutoModel.from_pretrained(folder)` and
`timm.create_model("local-dir:" + folder, pretrained=True)` load without this package.
"""

import copy
import difflib
import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, TimmWrapperConfig
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import safe_save_file
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperPreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME
from transformers.utils.generic import can_return_tuple

SMALLEST_STRIDE = 4
ARCHITECTURE = re.compile(r"[A-Za-z0-9_]+")
# Arguments by which a config could make timm read other files, or build something else than a backbone.
REFUSED_ARGUMENT = re.compile(r"pretrained.*|checkpoint.*|cache_dir|features_only|feature_cfg|num_classes|scriptable")
# Networks with attention are made for one image size. These arguments lift that and pool the map of the last stage, as
# far as a network has them.
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "global_pool": "avg", "final_norm": True, "fc_norm": False},
    {"dynamic_img_size": True, "global_pool": "avg", "use_fc_norm": False},
    {"strict_img_size": False, "global_pool": "avg"},
    {"dynamic_img_size": True},
    {},
)


class TimmStagesConfig(BackboneConfigMixin, TimmWrapperConfig):
    r"""Configuration of `TimmStages`; its JSON is also that of a `TimmWrapperModel`.

    Args:
        architecture (`str`): Name of a network in timm, without a tag.
        model_args (`dict`, *optional*): Arguments of the network. Default: those that let it take images of any size.
        stage_indices (`list[int]`, *optional*): Which of the network's feature maps are stages. Default: those at a
            stride of 4 pixels and more.
        hidden_sizes (`list[int]`, *optional*): Channels of each stage. Default: looked up.

    Raises:
        ValueError: timm is not installed, has no such network, or the network gives no feature maps.
    """

    architecture: str = "resnet50"
    model_args: dict[str, Any] | None = None
    num_channels: int = 3
    stage_indices: list[int] | None = None
    hidden_sizes: list[int] | None = None
    pretrained_cfg: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_arguments(self.architecture, self.model_args)
        self.pretrained_cfg = dict(self.pretrained_cfg or {})
        if self.stage_indices is None or self.hidden_sizes is None or self.model_args is None:
            self.model_args, self.stage_indices, self.hidden_sizes = _described(
                self.architecture, self.model_args, self.num_channels
            )
        if len(self.stage_indices) != len(self.hidden_sizes):
            raise ValueError("stage_indices and hidden_sizes must have one entry for each stage")
        self.stage_names = [f"stage{number}" for number in range(1, len(self.stage_indices) + 1)]
        kwargs.pop("stage_names", None)
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)


class TimmStages(BackboneMixin, TimmWrapperPreTrainedModel):
    """A network of timm that returns the feature maps of its stages.

    A network with a final norm has it applied to the maps, as far as timm's `forward_intermediates` does.
    """

    config: TimmStagesConfig
    has_attentions = False
    # Published classifiers of timm have one; a backbone has none.
    _keys_to_ignore_on_load_unexpected = (r"^(timm_model\.)?(fc|head|classifier|head_dist)\.",)

    def __init__(self, config: TimmStagesConfig) -> None:
        super().__init__(config)
        self.num_features = list(cast(list[int], config.hidden_sizes))
        self.timm_model = _create(config.architecture, config.model_args or {}, config.num_channels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep timm's own initial weights; only tensors that no file holds are set again."""
        reset: Any = getattr(module, "init_non_persistent_buffers", None)
        if reset is not None:
            reset()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput:
        """Feature maps of `out_features`, each (batch, channels, height, width), first stage first."""
        config = self.config
        indices = [cast(list[int], config.stage_indices)[number] for number in cast(list[int], config.out_indices)]
        maps = cast(Any, self.timm_model).forward_intermediates(
            pixel_values, indices=indices, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return BackboneOutput(
            feature_maps=tuple(maps), hidden_states=tuple(maps) if output_hidden_states else None, attentions=None
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write timm's own files: a config.json that timm and transformers read, and tensors by timm's names.

        Args:
            save_directory: Created if missing.
            **kwargs: `state_dict` replaces the model's own; the others of transformers have no effect.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = kwargs.get("state_dict") or self.state_dict()
        tensors = {name.removeprefix("timm_model."): value.contiguous() for name, value in state.items()}
        safe_save_file(tensors, str(folder / SAFE_WEIGHTS_NAME), metadata={"format": "pt"})
        values = timm_files_config(self.config)
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


AutoBackbone.register(TimmStagesConfig, TimmStages, exist_ok=True)


def stages_config(values: Mapping[str, Any]) -> TimmStagesConfig:
    """Read the values of a timm network's config.json, without what belongs to a classifier.

    Args:
        values: Of timm's own file, or of transformers'.
    """
    # What belongs to a classifier, or to transformers' own reading of the file.
    dropped = ("num_classes", "num_features", "label_names", "label_descriptions", "architectures", "model_type")
    kept = {name: copy.deepcopy(value) for name, value in values.items() if name not in dropped}
    kept["architecture"] = str(kept.get("architecture", "")).partition(".")[0]
    found: TimmStagesConfig = TimmStagesConfig.from_dict({**kept, "num_classes": 0, "label_names": []})
    return found


def timm_files_config(config: TimmStagesConfig) -> dict[str, Any]:
    """The values of the config.json of a published timm network, which timm and transformers read."""
    made = importlib.import_module("timm").models.get_pretrained_cfg(config.architecture)
    default = {} if made is None else made.to_dict()
    size = list(default.get("input_size", (3, 224, 224)))
    described = {
        "input_size": [config.num_channels, *size[1:]],
        "interpolation": "bicubic",
        "crop_pct": default.get("crop_pct", 0.875),
        "mean": list(default.get("mean", (0.485, 0.456, 0.406))),
        "std": list(default.get("std", (0.229, 0.224, 0.225))),
        "num_classes": 0,
        "first_conv": default.get("first_conv"),
        "classifier": default.get("classifier"),
    }
    return {
        "model_type": config.model_type,
        "architecture": config.architecture,
        "architectures": ["TimmWrapperModel"],
        "num_classes": 0,
        "num_features": cast(list[int], config.hidden_sizes)[-1],
        "num_channels": config.num_channels,
        "model_args": dict(config.model_args or {}),
        "stage_indices": list(config.stage_indices or []),
        "hidden_sizes": list(config.hidden_sizes or []),
        "pretrained_cfg": described | (config.pretrained_cfg or {}),
    }


def check_arguments(architecture: object, arguments: object) -> None:
    """Refuse a config that would make timm fetch or read other files.

    Raises:
        ValueError: The architecture is no plain name, or an argument is refused; the message names it.
    """
    if not isinstance(architecture, str) or not ARCHITECTURE.fullmatch(architecture):
        raise ValueError(f"architecture must be the name of a network in timm, got {str(architecture)[:60]!r}")
    for name, value in (arguments or {}).items() if isinstance(arguments, (Mapping, type(None))) else [("", None)]:
        plain = isinstance(value, (bool, int, float, str, list, tuple, type(None)))
        if not isinstance(name, str) or not name or REFUSED_ARGUMENT.fullmatch(name) or not plain:
            raise ValueError(f"model_args has {str(name)[:60]!r}, which is no argument of a backbone: refused")


def _create(architecture: str, arguments: Mapping[str, Any], channels: int) -> Any:
    """Build a network of timm without a classifier and without weights of others."""
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(
            f"timm/{architecture} needs timm, which is not installed: pip install 'ladder-siamese[timm]'"
        ) from error
    if architecture not in timm.list_models():
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.7)
        raise ValueError(
            f"timm {timm.__version__} has no network {architecture!r}"
            + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    arguments = {**arguments} if channels == 3 else {**arguments, "in_chans": channels}
    return timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)


def _described(
    architecture: str, arguments: dict[str, Any] | None, channels: int
) -> tuple[dict[str, Any], list[int], list[int]]:
    """Find out which feature maps a network gives, without computing any.

    Returns:
        (arguments of the network, which maps are stages, channels of each).
    """
    failure: Exception | None = None
    for tried in ANY_SIZE if arguments is None else (arguments,):
        with torch.device("meta"):
            try:
                network = _create(architecture, tried, channels).eval()
                _, height, width = network.default_cfg.get("input_size", (3, 224, 224))
                maps = network.forward_intermediates(
                    torch.empty(1, channels, height, width), norm=True, output_fmt="NCHW", intermediates_only=True
                )
            except (TypeError, AttributeError, AssertionError, RuntimeError) as error:
                failure = failure if isinstance(failure, (AttributeError, AssertionError)) else error
                continue
        stages = [number for number, one in enumerate(maps) if height // one.shape[-2] >= SMALLEST_STRIDE]
        if stages:
            return dict(tried), stages, [maps[number].shape[1] for number in stages]
    reason = " ".join(str(failure).split())[:160]
    raise ValueError(f"timm/{architecture} gives no feature maps by stage that can be pretrained ({reason})")


__all__ = ["TimmStages", "TimmStagesConfig", "stages_config", "timm_files_config"]
