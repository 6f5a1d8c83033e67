"""Training arguments: transformers' own with the defaults of Siamese pretraining, and our fields."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from transformers import TrainingArguments
from transformers.integrations import is_tensorboard_available
from transformers.trainer_utils import SaveStrategy

from ..errors import UserError, did_you_mean, near_names, said_once_per_machine
from .fields import check_fields, default_of, fields_of, option
from .inherited import RANGES, REFUSED, is_default
from .launchers import check_launcher, check_together, launched_processes
from .options import TrainingOptions
from .ranges import check_seed


@dataclass(frozen=True)
class Rates:
    """The learning rates that an optimizer trains with.

    Attributes:
        default: Peak rate if neither `learning_rate` nor `base_learning_rate` is given.
        least: A peak below it is reported: the weights hardly move.
        most: A peak above it is refused, as a value that was meant for another optimizer.
    """

    default: float
    least: float
    most: float


# LARS's default is BYOL's base rate for 100 epochs, SGD's is SimSiam's for 256 images, AdamW's is that of the recipes
# `digits` and `small`. A rate of one optimizer is useless for another: LARS divides each gradient by its own length.
RATES: Mapping[str, Rates] = {
    "lars": Rates(0.45, 1e-3, 100.0),
    "sgd": Rates(0.05, 1e-5, 10.0),
    "adamw": Rates(2e-3, 1e-6, 0.1),
}

OPTIMIZER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "momentum": ("lars", "sgd"),
    "lars_eta": ("lars",),
    "adam_beta1": ("adamw",),
    "adam_beta2": ("adamw",),
    "adam_epsilon": ("adamw",),
}
"""Fields that belong to some optimizers only."""
_UNSET = -1


@dataclass
class LadderTrainingArguments(TrainingOptions, TrainingArguments):
    """`transformers.TrainingArguments` with BYOL's defaults and the fields of `TrainingOptions`.

    These defaults differ from transformers': the optimizer's own learning rate (`RATES`), a cosine schedule, weight
    decay 1e-6 (BYOL's), no gradient clipping (LARS scales each layer, and clipping would silently change the recipe),
    NaN losses stay in the logs, unused columns are kept, and the log goes to TensorBoard where that is installed. Two
    checkpoints are kept by default (`save_total_limit`), with `save_strategy` "epoch" all. Fields that would have no
    effect on pretraining are refused (`inherited`).

    Raises:
        UserError: a value is wrong; the message names the field.
    """

    learning_rate: float = cast(float, None)  # until __post_init__ takes the optimizer's default
    weight_decay: float = 1e-6
    max_grad_norm: float = 0.0
    lr_scheduler_type: str = "cosine"
    logging_nan_inf_filter: bool = False
    remove_unused_columns: bool = False
    save_total_limit: int | None = option(
        _UNSET, "Checkpoints that are kept; 0: all; -1: two, or all with save_strategy epoch.", minimum=_UNSET
    )
    logging_steps: float = 50
    report_to: str | list[str] | None = None

    def __post_init__(self) -> None:
        with said_once_per_machine():
            self._check_before_start()
        if launched_processes() > 1 and not torch.accelerator.is_available():
            self.use_cpu = True  # or accelerate takes each of several processes without a GPU for a job of its own
        super().__post_init__()
        with said_once_per_machine():
            check_together(launched_processes(), self.world_size, self.device.type)
        if self.learning_rate is None:
            self.learning_rate = RATES[self.optimizer].default
        if self.save_total_limit == _UNSET:
            # Who asks for a checkpoint at the end of each pass wants to keep them.
            self.save_total_limit = None if self.save_strategy == SaveStrategy.EPOCH else 2
        self._check_rate()
        if self.per_device_train_batch_size < 2:
            raise UserError(
                "per_device_train_batch_size must be at least 2, since batch norm needs more than one image; "
                f"got {self.per_device_train_batch_size}"
            )
        if self.max_steps == 0:
            raise UserError("max_steps is 0: give at least 1, or -1 to train for num_train_epochs")

    def _check_before_start(self) -> None:
        """Check what needs no device, and so no other process."""
        if self.activation_checkpointing or self.gradient_checkpointing:
            # The second forward would move every running mean and variance twice (pytorch issue 62471).
            raise UserError(
                "activation_checkpointing (gradient_checkpointing) repeats each forward, so batch norm would count "
                "every view twice: leave it off; gradient_accumulation_steps or bf16 save memory"
            )
        check_fields(self, fields_of(TrainingOptions))
        for name, allowed in RANGES.items():
            allowed.check(getattr(self, name), name)
        for name in ("seed", "data_seed"):
            seed = getattr(self, name)
            setattr(self, name, None if name == "data_seed" and seed is None else check_seed(seed, name))
        self._refuse_what_has_no_effect()
        self._check_strategies()
        _check_compiler(self.torch_compile_backend, self.torch_compile_mode)
        if self.report_to is None:
            self.report_to = "tensorboard" if is_tensorboard_available() else "none"
        compiled = self.torch_compile or self.torch_compile_backend or self.torch_compile_mode
        check_launcher(
            "bf16" if self.bf16 else "fp16" if self.fp16 else "no",
            (self.torch_compile_backend or "inductor") if compiled else "no",
        )

    def _refuse_what_has_no_effect(self) -> None:
        declared = fields_of(type(self))
        for name, reason in REFUSED.items():
            default = default_of(declared[name][1])
            if not is_default(getattr(self, name), default):
                raise UserError(f"{name} {reason}")
        for name, optimizers in OPTIMIZER_FIELDS.items():
            if self.optimizer not in optimizers and getattr(self, name) != default_of(declared[name][1]):
                raise UserError(f"{name} has no effect on the optimizer {self.optimizer}: it is for {optimizers[0]}")

    def _check_strategies(self) -> None:
        looks, saves = (str(getattr(value, "value", value)) for value in (self.eval_strategy, self.save_strategy))
        if self.load_best_model_at_end and saves != "best" and (looks == "no" or looks != saves):
            raise UserError(
                "load_best_model_at_end needs looks and checkpoints at the same steps: eval_strategy and save_strategy "
                f"both steps or both epoch, or save_strategy best; they are {looks} and {saves}"
            )

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

    def _check_rate(self) -> None:
        """Refuse a rate that is far too high for the optimizer, and report one that is far too low.

        Raises:
            UserError: the rate is too high; the message gives the optimizer's default.
        """
        rates, peak = RATES[self.optimizer], self.peak_learning_rate
        if self.base_learning_rate is None:
            given = f"learning_rate {peak:g}"
        else:
            given = f"base_learning_rate {self.base_learning_rate:g} is {peak:g} at {self.global_batch_size} images and"
        usual = f"its range is {rates.least:g} to {rates.most:g}, its default {rates.default:g}"
        if peak > rates.most:
            raise UserError(f"{given} is far too high for the optimizer {self.optimizer}: {usual}")
        if 0 < peak < rates.least:
            warnings.warn(
                f"{given} is very low for the optimizer {self.optimizer}, so that little is learnt: {usual}",
                stacklevel=2,
            )


def _check_compiler(backend: str | None, mode: str | None) -> None:
    """Check the compiler and its mode, which accelerate and torch would refuse only when the model is there.

    Raises:
        UserError: there is none of this name.
    """
    if backend is not None:
        from accelerate.utils import DynamoBackend

        known = [one.value.lower() for one in DynamoBackend]
        if backend.lower() not in known:
            near = did_you_mean(near_names(backend.lower(), known)) or "; inductor is the usual one"
            raise UserError(f"torch_compile_backend: there is no backend {backend!r}{near}")
    if mode is not None:
        from torch._inductor import list_mode_options

        modes = list(list_mode_options())
        if mode not in modes:
            raise UserError(f"torch_compile_mode must be one of {', '.join(modes)}, got {mode!r}")
