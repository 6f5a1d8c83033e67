"""What happens around a training step: the target's update, looks at held-out images, the progress bar."""

import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ProgressCallback

from ladder_training.momentum import target_momentum

if TYPE_CHECKING:
    from ladder_training.trainer import LadderTrainer


class TargetUpdateCallback(TrainerCallback):
    """Moves the target once per optimizer step, after it and before any save; tau needs no state of its own."""

    def __init__(self, trainer: "LadderTrainer") -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """`global_step` is already counted up: this was optimizer step `global_step - 1`."""
        state.epoch = self.trainer.passes
        if self.trainer.accelerator.optimizer_step_was_skipped:
            return
        model = self.trainer.pretraining_model
        momentum = target_momentum(state.global_step - 1, state.max_steps, model.config.base_momentum)
        model.update_target(momentum)
        self.trainer.last_momentum = momentum


class MonitorCallback(TrainerCallback):
    """Asks the trainer to look at held-out images: before the first step, every `every` steps, and after the last."""

    def __init__(self, trainer: "LadderTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The untrained network's figures, once; a resumed run has them already."""
        if state.global_step == 0 and self._every(state) > 0:
            self.trainer.look()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Marks the steps at which the trainer evaluates."""
        every = self._every(state)
        if every > 0 and (state.global_step % every == 0 or state.global_step == state.max_steps):
            control.should_evaluate = True

    def _every(self, state: TrainerState) -> int:
        if self.trainer.held_out is None:
            return 0
        every = self.trainer.args.monitor_steps
        return max(1, state.max_steps // 10) if every is None else every


class ImagesProgressCallback(ProgressCallback):
    """transformers' progress bar (steps, time left), with images/s."""

    def __init__(self, images_per_step: int, max_str_len: int = 100) -> None:
        super().__init__(max_str_len)
        self.images_per_step = images_per_step

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A resumed run's bar starts where the run stands."""
        super().on_train_begin(args, state, control, **kwargs)
        self.started, self.first_step = time.monotonic(), state.global_step
        if self.training_bar is not None:
            self.training_bar.update(state.global_step)
            self.current_step = state.global_step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Images per second since the start of this process."""
        if self.training_bar is not None:
            seconds = max(time.monotonic() - self.started, 1e-9)
            rate = (state.global_step - self.first_step) * self.images_per_step / seconds
            self.training_bar.set_postfix({"images/s": f"{rate:.0f}"}, refresh=False)
        super().on_step_end(args, state, control, **kwargs)
