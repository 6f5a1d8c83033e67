"""transformers' own Trainer with the classifier: accumulated micro-batches give the loss and gradient of their union.

For classes whose forward takes any keyword, it takes a mean for a sum, and multiplies both by the number of
micro-batches.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from helpers.models import tiny_resnet
from modeling_ladder import LadderSiameseConfig, LadderSiameseForImageClassification


class Images(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": index % 3}


class Settled(LadderSiameseForImageClassification):
    """Its batch norms never take the statistics of a batch, so that the size of a batch does not matter."""

    def train(self, mode: bool = True) -> "Settled":
        return super().train(False)


def test_accumulation_leaves_loss_and_gradient_as_they_are(tmp_path: Path) -> None:
    logged = []
    for batch, accumulated in ((16, 1), (4, 4)):
        torch.manual_seed(0)
        model = Settled(LadderSiameseConfig(backbone_config=tiny_resnet(), num_labels=3))
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            logging_steps=1,
            max_grad_norm=1e9,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=Images())
        trainer.train()
        logged.append(next(entry for entry in trainer.state.log_history if "loss" in entry))
    for name in ("loss", "grad_norm"):
        assert logged[1][name] == pytest.approx(logged[0][name], rel=1e-3)
