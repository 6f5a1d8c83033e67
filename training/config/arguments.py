"""Training arguments: transformers' own with the defaults of Siamese pretraining, and our fields."""

from dataclasses import dataclass

from transformers import TrainingArguments

from ..errors import UserError
from .options import TrainingOptions

OPTIMIZERS = ("lars", "sgd", "adamw")


@dataclass
class LadderTrainingArguments(TrainingOptions, TrainingArguments):
    """`transformers.TrainingArguments` with BYOL's defaults and the fields of `TrainingOptions`.

    These defaults differ from transformers': a cosine schedule, weight decay 1e-6 (BYOL's), no gradient clipping (LARS
    scales each layer, and clipping would silently change the recipe), NaN losses stay in the logs, and unused columns
    are kept.

    Raises:
        UserError: a value is wrong; the message names the field.
    """

    learning_rate: float = 0.45
    weight_decay: float = 1e-6
    max_grad_norm: float = 0.0
    lr_scheduler_type: str = "cosine"
    logging_nan_inf_filter: bool = False
    remove_unused_columns: bool = False
    save_total_limit: int | None = 2
    logging_steps: float = 50

    def __post_init__(self) -> None:
        if self.activation_checkpointing or self.gradient_checkpointing:
            # The second forward would move every running mean and variance twice (pytorch issue 62471).
            raise UserError(
                "activation_checkpointing (gradient_checkpointing) repeats each forward, so batch norm would count "
                "every view twice: leave it off; gradient_accumulation_steps or bf16 save memory"
            )
        super().__post_init__()
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        for name in (
            "learning_rate",
            "base_learning_rate",
            "weight_decay",
            "lars_eta",
            "warmup_epochs",
            "monitor_steps",
        ):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UserError(f"{name} must be at least 0, got {value}")
        if self.per_device_train_batch_size < 2:
            raise UserError(
                "per_device_train_batch_size must be at least 2, since batch norm needs more than one image; "
                f"got {self.per_device_train_batch_size}"
            )
        if self.max_steps == 0:
            raise UserError("max_steps is 0: give at least 1, or -1 to train for num_train_epochs")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if self.monitor_images < 2:
            raise UserError(f"monitor_images must be at least 2, got {self.monitor_images}")

    @property
    def global_batch_size(self) -> int:
        """Images per optimizer step: per device, times accumulation, times processes."""
        return int(self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size)

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate after warm-up: `base_learning_rate` * global batch / 256 where given, else `learning_rate`."""
        if self.base_learning_rate is None:
            return self.learning_rate
        return self.base_learning_rate * self.global_batch_size / 256
