"""A small pretraining model, arguments to train it with, and its weights compared."""

from pathlib import Path
from typing import Any

import torch

from ladder_training.config.arguments import LadderTrainingArguments
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining


def make_model(tiny_backbone: Any, **fields: Any) -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    fields = {"projection_hidden_size": 32, "projection_size": 16, "local_grid_size": 3, **fields}
    return LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=tiny_backbone, **fields))


def make_arguments(folder: Path, **fields: Any) -> LadderTrainingArguments:
    defaults = {
        "output_dir": str(folder),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.5,
        "logging_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return LadderTrainingArguments(**{**defaults, **fields})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different[:5]
