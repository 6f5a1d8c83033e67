"""Which configs are those of timm's networks. timm itself, slow to import, is needed for these only."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

MODEL_TYPE = "timm_wrapper"


def is_timm_config(values: Mapping[str, Any]) -> bool:
    """Tell whether the values of a config.json are those of a network of timm: its own file, or transformers'."""
    if "model_type" in values:
        return bool(values["model_type"] == MODEL_TYPE)
    return "architecture" in values and "pretrained_cfg" in values


def with_stages(config: PreTrainedConfig | Mapping[str, Any]) -> Any:
    """Give the config of a timm network its stages; every other config is returned as it is.

    Args:
        config: A config, or the values of one.
    """
    kind = {"model_type": config.model_type} if isinstance(config, PreTrainedConfig) else config
    if not is_timm_config(kind):
        return config
    from .timm_stages import TimmStagesConfig, stages_config

    if isinstance(config, TimmStagesConfig):
        return config
    return stages_config(config.to_dict() if isinstance(config, PreTrainedConfig) else config)


__all__ = ["is_timm_config", "with_stages"]
