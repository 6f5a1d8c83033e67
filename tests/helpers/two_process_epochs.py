"""Run by trainer/test_two_processes.py: checkpoints at the ends of passes, on two processes, and on from one."""

import sys
from pathlib import Path

import torch

from helpers.models import tiny_resnet
from helpers.view_dataset import ViewPairs
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining


def main(folder: Path) -> None:
    """Eight steps of three a pass, so that the run ends in the middle of its third pass; then again from step 3."""

    def build() -> LadderTrainer:
        torch.manual_seed(0)
        heads = {"projection_hidden_size": 32, "projection_size": 16, "local_grid_size": 3, "base_momentum": 0.8}
        config = LadderSiameseConfig(backbone_config=tiny_resnet(), **heads)
        arguments = LadderTrainingArguments(
            output_dir=str(folder / "run"),
            max_steps=8,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=0.5,
            save_strategy="epoch",
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        )
        return LadderTrainer(LadderSiameseForPreTraining(config), arguments, ViewPairs(24))

    whole = build()
    whole.train()
    resumed = build()
    resumed.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-3"))
    results = {"whole": whole.pretraining_model.state_dict(), "resumed": resumed.pretraining_model.state_dict()}
    torch.save(results, folder / f"rank{whole.args.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
