"""Callbacks of the Trainer: the target's update, ends of passes, and looks at held-out images."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .momentum import target_momentum


class TargetUpdateCallback(TrainerCallback):
    """Updates the target after each optimizer step, before any save. tau follows from the step, so it is never saved.

    Args:
        accelerator: Tells whether the optimizer step was skipped, and unwraps the model of a distributed run.
        passes: Returns the number of passes over the training data so far.

    Attributes:
        last_momentum: tau of the last update; None before the first.
    """

    def __init__(self, accelerator: Any, passes: Callable[[], float]) -> None:
        self._accelerator, self._passes = accelerator, passes
        self.last_momentum: float | None = None

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Update the target. `global_step` is already incremented: the step was number `global_step - 1`."""
        state.epoch = self._passes()
        if self._accelerator.optimizer_step_was_skipped:
            return
        model = self._accelerator.unwrap_model(kwargs["model"])
        momentum = target_momentum(state.global_step - 1, state.max_steps, model.config.base_momentum)
        model.update_target(momentum)
        self.last_momentum = momentum


class PassCallback(TrainerCallback):
    """Logs, looks and saves at the end of each pass over the images, for the strategies "epoch".

    transformers does this at the end of an iterator, but pretraining's never ends. A pass ends at the step in which its
    last image is used. All processes count by the same number of steps, so they save together.
    """

    def __init__(self) -> None:
        self.steps_per_pass: float | None = None
        self._done_at = -1

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request what is due if a pass ended in this step."""
        if self.steps_per_pass is None:
            return
        before, passes = ((step + 1e-6) // self.steps_per_pass for step in (state.global_step - 1, state.global_step))
        if passes == before:
            return
        self._done_at = state.global_step
        if args.logging_strategy == IntervalStrategy.EPOCH:
            control.should_log = True
        if args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= passes:
            control.should_evaluate = True
        if args.save_strategy == SaveStrategy.EPOCH:
            control.should_save = True

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the last step of the run, transformers requests the same again: not if a pass ended there."""
        if self._done_at == state.global_step:
            control.should_evaluate = control.should_save = False


class MonitorCallback(TrainerCallback):
    """Requests a look at the held-out images before the first step, every `monitor_steps` steps, and after the last.

    If `eval_strategy` says when to look, and `monitor_steps` is not given, it requests only the look before the first
    step.

    Args:
        look: Looks at the held-out images. None if no image is held out.
    """

    def __init__(self, look: Callable[[], Any] | None) -> None:
        self._look = look

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the untrained network, but not in a resumed run, whose log has this entry already."""
        if self._look is None or state.global_step > 0 or args.eval_on_start:
            return
        if self._every(args, state) > 0 or args.eval_strategy != IntervalStrategy.NO:
            self._look()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request an evaluation if one is due after this step."""
        every = self._every(args, state)
        if every > 0 and (state.global_step % every == 0 or state.global_step == state.max_steps):
            control.should_evaluate = True

    def _every(self, args: Any, state: TrainerState) -> int:
        if self._look is None:
            return 0
        if args.monitor_steps is None and args.eval_strategy != IntervalStrategy.NO:
            return 0
        return max(1, state.max_steps // 10) if args.monitor_steps is None else args.monitor_steps
