"""Between Ladder checkpoints and the native transformers backbones that are published: load, read, write."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from .checking import check_before_loading, checked_config

LADDER_MODEL_TYPE = "ladder_siamese"
HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


def split_hub_kwargs(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments that say where to load from, and the others."""
    hub = {key: value for key, value in kwargs.items() if key in HUB_KWARGS and value is not None}
    return hub, {key: value for key, value in kwargs.items() if key not in HUB_KWARGS}


def read_config_dict(name_or_path: str | os.PathLike, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The saved config.json of a folder or Hub repo, as a dictionary; `kwargs` may hold hub arguments.

    Raises:
        OSError: there is none.
        ValueError: a field is out of reason (`checking.check_config_size`).
    """
    hub, _ = split_hub_kwargs(kwargs)
    config = checked_config(name_or_path, **hub)
    # Without a file transformers says what is missing.
    return PreTrainedConfig.get_config_dict(name_or_path, **hub)[0] if config is None else config


def is_ladder_config(config: dict[str, Any] | PreTrainedConfig) -> bool:
    """Whether a config belongs to a Ladder model and not to a native backbone."""
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    return model_type == LADDER_MODEL_TYPE


def stage_names(config: PreTrainedConfig) -> list[str]:
    """Names of a backbone's stages, without the stem."""
    return [name for name in config.stage_names if name != "stem"]


def load_native_backbone(name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
    """Load a published native backbone with all stages as features: `AutoBackbone.from_pretrained` fails on folders.

    Args:
        name_or_path: Folder or Hub name of a backbone, model or classifier of any transformers backbone family.
        **kwargs: As in `from_pretrained`.

    Returns:
        The backbone in eval mode (with `output_loading_info=True`, and the loading info).

    Raises:
        ValueError: the model type has no backbone class in transformers, it is a Ladder checkpoint, or
            `check_before_loading` refuses it (pickles, damaged weights, absurd sizes).
    """
    hub, _ = split_hub_kwargs(kwargs)
    check_before_loading(name_or_path, **hub)
    # False, not left open: transformers would ask whoever sits there whether to run an unknown model's code.
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **hub)
    if is_ladder_config(config):
        raise ValueError(f"{name_or_path} is a Ladder checkpoint; load it with LadderSiameseModel.from_pretrained")
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(f"{name_or_path}: model type {config.model_type!r} has no backbone class in transformers")
    config.out_features = stage_names(config)
    return MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(name_or_path, config=config, **kwargs)


def native_backbone(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the online backbone as a plain transformers backbone, in contiguous memory, all stages as features.

    Args:
        model: Any Ladder model, or a transformers backbone itself.
    """
    backbone = getattr(model, "backbone", model)
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    config.out_features = stage_names(config)
    with torch.device("meta"):
        native = type(backbone)(config)
    native.to_empty(device="cpu")
    state = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in backbone.state_dict().items()
    }
    native.load_state_dict(state, assign=True)
    return native.eval()


def save_native_backbone(model: PreTrainedModel, folder: str | os.PathLike) -> Path:
    """Write the online backbone as the native model that DESIGN's repo root holds: config.json and model.safetensors.

    `AutoModel`, `ResNetBackbone` and `ResNetForImageClassification` load the folder without this package.

    Args:
        model: Any Ladder model.
        folder: Made if missing; other files in it stay.
    """
    folder = Path(folder)
    native_backbone(model).save_pretrained(folder)
    return folder


__all__ = ["load_native_backbone", "native_backbone", "save_native_backbone"]
