"""Load, read and write the native transformers backbones that are published, and tell them from Ladder checkpoints."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from .checking import check_before_loading, checked_config
from .timm_configs import with_stages

LADDER_MODEL_TYPE = "ladder_siamese"
HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


def split_hub_kwargs(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into those that say where to load from and all others."""
    hub = {key: value for key, value in kwargs.items() if key in HUB_KWARGS and value is not None}
    return hub, {key: value for key, value in kwargs.items() if key not in HUB_KWARGS}


def read_config_dict(name_or_path: str | os.PathLike[str], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Read the config.json of a folder or Hub repo.

    Args:
        name_or_path: Folder or Hub name.
        kwargs: Keyword arguments of `from_pretrained`; only those that say where to load from are used.

    Raises:
        OSError: There is no config.json.
        ValueError: A field has an unreasonable value (see `checking.check_config_size`).
    """
    hub, _ = split_hub_kwargs(kwargs)
    config = checked_config(name_or_path, **hub)
    # If there is no file, transformers raises the error that says what is missing.
    return PreTrainedConfig.get_config_dict(name_or_path, **hub)[0] if config is None else config


def is_ladder_config(config: dict[str, Any] | PreTrainedConfig) -> bool:
    """Tell whether a config belongs to a Ladder model rather than to a native backbone."""
    model_type = config.get("model_type") if isinstance(config, dict) else config.model_type
    return model_type == LADDER_MODEL_TYPE


def require_ladder_config(config: PreTrainedConfig, model_class: str) -> None:
    """Refuse the config of another model, such as that of the backbone itself.

    Raises:
        ValueError: The message says how to make the config that is needed.
    """
    if not is_ladder_config(config):
        raise ValueError(
            f"{model_class} needs a LadderSiameseConfig, got {type(config).__name__}; for one on this backbone, "
            "LadderSiameseConfig(backbone_config=config)"
        )


def copy_weights(source: nn.Module, target: nn.Module, how_to_mend: str) -> None:
    """Copy the weights and batch-norm statistics of a backbone into one of the same architecture.

    Args:
        source: Where the weights come from.
        target: Changed in place. Its batch norm may be a frozen one, which counts no batches.
        how_to_mend: Ends the message if they differ.

    Raises:
        ValueError: They differ; the message names the first tensor. Nothing was changed.
    """
    given, have = source.state_dict(), target.state_dict()
    wrong = [key for key in have if key not in given or have[key].shape != given[key].shape]
    wrong += [key for key in given if key not in have and not key.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(f"the backbones differ at {wrong[0]!r} (and {len(wrong) - 1} more): {how_to_mend}")
    target.load_state_dict(given, strict=False)


def stage_names(config: PreTrainedConfig) -> list[str]:
    """List the names of a backbone's stages, first to last, without the stem."""
    return [name for name in config.stage_names if name != "stem"]


def load_native_backbone(name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
    """Load a published native backbone that returns the feature maps of all its stages.

    Unlike `AutoBackbone.from_pretrained`, this also loads folders.

    Args:
        name_or_path: Folder or Hub name of a backbone, model or classifier of any transformers backbone family.
        **kwargs: As in `from_pretrained`.

    Returns:
        The backbone in eval mode; with `output_loading_info=True`, a pair of the backbone and the loading info.

    Raises:
        ValueError: transformers has no backbone class for the model type, the folder holds a Ladder checkpoint, or
            `check_before_loading` refuses it (pickles, damaged weights, unreasonable sizes).
    """
    hub, _ = split_hub_kwargs(kwargs)
    check_before_loading(name_or_path, variant=kwargs.get("variant"), **hub)
    # Left unset, transformers would ask on the terminal whether to run an unknown model's code.
    config = with_stages(AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **hub))
    if is_ladder_config(config):
        raise ValueError(f"{name_or_path} is a Ladder checkpoint; load it with LadderSiameseModel.from_pretrained")
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(f"{name_or_path}: model type {config.model_type!r} has no backbone class in transformers")
    config.out_features = stage_names(config)
    return MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(name_or_path, config=config, **kwargs)


def native_backbone(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the online backbone into a native transformers backbone.

    Args:
        model: Any Ladder model, or a transformers backbone itself.

    Returns:
        The copy on the CPU, in eval mode and contiguous memory, with all stages as `out_features`.
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
    # Buffers that are not saved (Swin's relative positions) hold whatever the memory held.
    for name, buffer in backbone.named_buffers():
        if name not in state:
            owner, _, leaf = name.rpartition(".")
            native.get_submodule(owner).register_buffer(leaf, buffer.detach().cpu().clone(), persistent=False)
    return native.eval()


def save_native_backbone(model: PreTrainedModel, folder: str | os.PathLike[str]) -> Path:
    """Write the online backbone as a native transformers model: config.json and model.safetensors.

    `AutoModel`, `ResNetBackbone` and `ResNetForImageClassification` load the folder without this package.

    Args:
        model: Any Ladder model.
        folder: Created if missing; other files in it are left alone.

    Returns:
        The folder.
    """
    folder = Path(folder)
    native_backbone(model).save_pretrained(folder)
    return folder


__all__ = ["load_native_backbone", "native_backbone", "save_native_backbone"]
