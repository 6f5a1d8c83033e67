"""Ladder Siamese Network: models, configuration and losses (arXiv 2211.13844), in the transformers API."""

from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining

from .composites import load_backbone_into
from .configuration_ladder import LadderSiameseConfig
from .conversion import load_native_backbone, native_backbone, save_native_backbone
from .losses import effective_rank, normalised_std, pair_loss, symmetric_loss
from .modeling_ladder import (
    LadderSiameseBackbone,
    LadderSiameseForImageClassification,
    LadderSiameseModel,
    LadderSiamesePreTrainedModel,
)
from .modeling_ladder_pretraining import LadderSiameseForPreTraining, LadderSiameseForPreTrainingOutput

__version__ = "0.1.0"

AutoConfig.register(LadderSiameseConfig.model_type, LadderSiameseConfig, exist_ok=True)
AutoModel.register(LadderSiameseConfig, LadderSiameseModel, exist_ok=True)
AutoBackbone.register(LadderSiameseConfig, LadderSiameseBackbone, exist_ok=True)
AutoModelForImageClassification.register(LadderSiameseConfig, LadderSiameseForImageClassification, exist_ok=True)
AutoModelForPreTraining.register(LadderSiameseConfig, LadderSiameseForPreTraining, exist_ok=True)

__all__ = [
    "LadderSiameseBackbone",
    "LadderSiameseConfig",
    "LadderSiameseForImageClassification",
    "LadderSiameseForPreTraining",
    "LadderSiameseForPreTrainingOutput",
    "LadderSiameseModel",
    "LadderSiamesePreTrainedModel",
    "effective_rank",
    "load_backbone_into",
    "load_native_backbone",
    "native_backbone",
    "normalised_std",
    "pair_loss",
    "save_native_backbone",
    "symmetric_loss",
]
