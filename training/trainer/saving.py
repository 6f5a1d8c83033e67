"""Checkpoints while training: written whole by all processes together, also when the process is asked to end."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from ..errors import NotFinite, UserError, system_error
from ..files import PARTIAL_PREFIX, remove
from ..loading.loader import ViewLoader
from ..models.published import TRAINER_STATE
from ..runs.agreement import StepAgreement, all_or_none, chosen_by_first
from ..runs.checkpoints import checkpoint_folder, partial_folder, publish_checkpoint, rotate_checkpoints
from ..runs.interruption import Interrupted, StopRequest
from .hub_trainer import HubTrainer
from .meters import first_non_finite
from .resuming import loader_file


class SavingTrainer(HubTrainer):
    """`HubTrainer` whose checkpoints are complete or absent.

    While it trains, a signal that asks the process to end (SIGTERM, SIGUSR1, SIGHUP, Ctrl-C) lets it finish the step,
    and the look or the checkpoint that is due after it. Then all processes write a checkpoint of this step and raise
    `Interrupted`.

    Attributes:
        stop_request: Keeps the signal. It is active during `train`; who enters it before is asked too.
    """

    _steps: StepAgreement

    def __init__(self, **kwargs: Any) -> None:
        self.stop_request = StopRequest()
        self._train_loader: ViewLoader | None = None
        self._resumable_step: int | None = None
        super().__init__(**kwargs)

    @property
    def _asked_to_end(self) -> bool:
        return self.stop_request.number is not None

    def end_if_asked(self) -> None:
        """End if any process was asked to; all processes must call it.

        Raises:
            Interrupted: after a checkpoint of this step was written, if there was none.
        """
        if not self._steps.any(self.stop_request.number is not None):
            return
        if self._resumable_step != self.state.global_step:
            only_model, self.args.save_only_model = self.args.save_only_model, False
            try:
                self._save_checkpoint(self.model, None)
            finally:
                self.args.save_only_model = only_model
            self.control: Any = self.callback_handler.on_save(self.args, self.state, self.control)
        self.is_in_train = False
        self.callback_handler.on_train_end(self.args, self.state, self.control)
        interrupted = Interrupted(self.stop_request.number or signal.SIGTERM)
        interrupted.shared = True
        raise interrupted

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """After what is due after a step, end if a signal asked for it."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self.end_if_asked()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under a temporary name, with checksums and the loader's position, then rename it."""
        all_or_none(self._check_finite)
        self.store_flos()
        run_dir, step = Path(self._get_output_dir(trial=trial)), self.state.global_step
        partial = partial_folder(run_dir, step)
        best = self.state.best_global_step
        if best and (best == step or checkpoint_folder(run_dir, best).is_dir()):
            self.state.best_model_checkpoint = str(checkpoint_folder(run_dir, best))
        with _removed_after_errors(partial):
            chosen_by_first(_told(partial, lambda: _new_folder(partial)))
            all_or_none(_told(partial, lambda: self._write_checkpoint(partial)))
            chosen_by_first(_told(partial, lambda: self._name_checkpoint(partial, run_dir, step)))
        self._resumable_step = None if self.args.save_only_model else step

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Look for a new best only where a checkpoint of this step is written, so that the best one can be loaded."""
        if self.args.save_strategy != SaveStrategy.BEST and not self.control.should_save:
            return False
        return super()._determine_best_metric(metrics, trial)

    def _write_checkpoint(self, partial: Path) -> None:
        """Write this process's files."""
        args = self.args
        partial.mkdir(parents=True, exist_ok=True)
        self.save_model(str(partial), _internal_call=True)
        if not args.save_only_model:
            self._save_optimizer_and_scheduler(str(partial))
            self._save_scaler(str(partial))
            self._save_rng_state(str(partial))
            state = cast(ViewLoader, self._train_loader).state_dict()
            (partial / loader_file(args.process_index)).write_text(json.dumps(state), encoding="utf-8")
        if args.should_save:
            self._export_callback_states()
            self.state.save_to_json(str(partial / TRAINER_STATE))

    def _name_checkpoint(self, partial: Path, run_dir: Path, step: int) -> None:
        """Make the folder a checkpoint, and delete the oldest ones."""
        args = self.args
        final = publish_checkpoint(partial, run_dir, step, args.world_size)
        best = self.state.best_model_checkpoint
        rotate_checkpoints(run_dir, args.save_total_limit, Path(best) if best else None)
        if args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _check_finite(self) -> None:
        bad = first_non_finite(self.pretraining_model)
        if bad is not None:
            raise NotFinite(
                f"{bad} is not finite at step {self.state.global_step}: nothing was saved, the last checkpoint is good"
            )

    def _export_callback_states(self) -> None:
        for callback in [c for c in [*self.callback_handler.callbacks, self.control] if isinstance(c, ExportableState)]:
            self.state.stateful_callbacks[type(callback).__name__] = callback.state()


def _new_folder(partial: Path) -> None:
    """Make an empty folder, in place of what an interrupted write left."""
    remove(partial)
    partial.mkdir(parents=True)


def _told(partial: Path, write: Callable[[], None]) -> Callable[[], None]:
    """The same work, with an error of the file system in one line for the user."""

    def told() -> None:
        try:
            write()
        except Exception as error:
            if (reason := system_error(error)) is None:
                raise
            raise UserError(
                f"{partial.name.removeprefix(PARTIAL_PREFIX)} cannot be written to {partial.parent}: {reason}. The "
                "checkpoints that were there are complete; the same command goes on from the newest"
            ) from error

    return told


@contextlib.contextmanager
def _removed_after_errors(partial: Path) -> Iterator[None]:
    """Remove the incomplete folder after an error: on a full disk, its room is needed."""
    try:
        yield
    except Exception:
        with contextlib.suppress(OSError):
            remove(partial)
        raise
