"""Run by trainer/test_two_processes.py: trains on two processes and writes what each ended with."""

import sys
from pathlib import Path
from typing import Any

import torch

from helpers.models import tiny_resnet
from helpers.view_dataset import ViewPairs
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining


def main(folder: Path) -> None:
    """Six steps with accumulation 2; a checkpoint at step 3; then on from it in a new trainer."""
    backbone = tiny_resnet()
    seen: list[float] = []

    def build(name: str, **levels: Any) -> LadderTrainer:
        torch.manual_seed(0)
        fields = {
            "projection_hidden_size": 32,
            "projection_size": 16,
            "local_grid_size": 3,
            "base_momentum": 0.8,
            **levels,
        }
        model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone, **fields))
        args = LadderTrainingArguments(
            output_dir=str(folder / name),
            max_steps=6,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=0.5,
            logging_steps=2,
            save_strategy="steps",
            save_steps=3,
            save_total_limit=2,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = LadderTrainer(model, args, ViewPairs(24))
        model.register_forward_pre_hook(
            lambda m, a, kwargs: seen.extend(kwargs["pixel_values"][:, 0, 0, 0, 0].tolist()), with_kwargs=True
        )
        return trainer

    whole = build("whole")
    whole.train()
    first_pass = seen[:12]
    resumed = build("whole")
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-3"))
    # A level in the middle only: the last stage gets no gradient, so DDP must look for unused parameters.
    middle = build("middle", level_weights=[0, 1, 0, 0])
    middle.train()
    torch.save(
        {
            "middle": middle.pretraining_model.state_dict(),
            "middle_find_unused": middle.args.ddp_find_unused_parameters,
            "whole": whole.pretraining_model.state_dict(),
            "resumed": resumed.pretraining_model.state_dict(),
            "first_pass": first_pass,
            "find_unused": whole.args.ddp_find_unused_parameters,
            "wrapped": type(whole.model_wrapped).__name__,
            "logged": [
                {key: value for key, value in entry.items() if key.startswith(("loss", "batch_std"))}
                for entry in whole.state.log_history
                if "loss" in entry
            ],
        },
        folder / f"rank{whole.args.process_index}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
