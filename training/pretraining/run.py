"""`ladder pretrain`: one run, from a recipe to a folder that can be published; the same command resumes it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed

from ..config.recipe import ResolvedRecipe
from ..errors import TrainingStopped, UserError
from ..models.published import TRAINER_STATE, publish
from ..runs.checkpoints import newest_valid_checkpoint
from ..runs.run_folder import (
    PRETRAINING,
    check_output,
    command_line,
    git_commit,
    hardware,
    now,
    recorded_text,
    recorded_values,
    versions,
    write_run,
)
from .build import Data, build_model, build_views, load_data, training_arguments

if TYPE_CHECKING:
    from ..trainer.trainer import LadderTrainer

BAD_IMAGES = "bad_images.jsonl"


class RunRecord(TrainerCallback):
    """Keeps run.json true while a run goes on: steps, images seen, and seconds over all starts.

    Args:
        folder: The run's folder.
        run: Content of run.json.
        batch_size: Images per optimizer step, over all devices.
    """

    def __init__(self, folder: Path, run: dict[str, Any], batch_size: int) -> None:
        self.folder, self.run, self.batch_size = folder, run, batch_size
        self.before, self.started = float(run.get("seconds") or 0), time.monotonic()
        self.cpu_before, self.cpu_started = float(run.get("cpu_seconds") or 0), _cpu_seconds()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A run that goes on from this checkpoint counts its seconds from here."""
        self.update(state)

    def update(self, state: TrainerState, **changes: Any) -> None:
        """Write run.json with the state's steps and further changes, in the main process only."""
        self.run |= {
            "steps": state.global_step,
            "images_seen": state.global_step * self.batch_size,
            "seconds": round(self.before + time.monotonic() - self.started, 1),
            "cpu_seconds": round(self.cpu_before + _cpu_seconds() - self.cpu_started, 1),
            **changes,
        }
        if state.is_world_process_zero:
            write_run(self.folder, self.run)


def pretrain(recipe: ResolvedRecipe) -> int:
    """Run a recipe to its end.

    Args:
        recipe: From `resolve`.

    Returns:
        The exit code 0.

    Raises:
        UserError: the recipe, the data or the output folder cannot be used; nothing was written then.
        TrainingStopped: a loss is not finite or a level has collapsed; run.json says so.
    """
    folder = Path(recipe.run.output or f"runs/{recipe.name}").expanduser()
    values = recorded_values({**recipe.values, "output": str(folder)})
    earlier = check_output(folder, values)
    if earlier is not None and earlier.get("status") == "finished":
        print(
            f"{folder} is finished: {earlier['steps']} steps; evaluate it with `ladder evaluate knn --model {folder}`"
        )
        return 0
    with _nothing_left_behind(folder):
        arguments = training_arguments(recipe, folder)
        set_seed(arguments.seed)
        model = build_model(recipe)
        data = load_data(recipe)
        trainer = _trainer(recipe, folder, arguments, model, data)
    with arguments.main_process_first(local=False, desc="looking for a checkpoint"):
        checkpoint = newest_valid_checkpoint(folder)
    run = earlier if earlier is not None and checkpoint is not None else _new_run(recipe, values, data, trainer)
    run |= {"status": "running", "reason": None, "command": command_line(), "starts": run.get("starts", 0) + 1}
    record = RunRecord(folder, run, arguments.global_batch_size)
    trainer.add_callback(record)
    if trainer.is_world_process_zero():
        write_run(folder, run)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except TrainingStopped as error:
        if trainer.is_world_process_zero():
            trainer.state.save_to_json(str(folder / TRAINER_STATE))
        record.update(trainer.state, status="stopped", reason=str(error))
        raise
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        publish(trainer.pretraining_model, trainer.transform, trainer.state, folder)
        record.update(trainer.state, status="finished", finished=now())
        _write_card(trainer, folder, recipe)
        if arguments.push_to_hub:
            _push(trainer, folder)
        print(f"finished: {folder} holds the backbone, its card and {PRETRAINING}/")
    trainer.accelerator.wait_for_everyone()
    return 0


def _cpu_seconds() -> float:
    """Processor time of this process and of those it waited for, in seconds, over all cores."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _trainer(recipe: ResolvedRecipe, folder: Path, arguments: Any, model: Any, data: Data) -> "LadderTrainer":
    """The trainer with its data looked at, so that every mistake in them shows before anything is written."""
    from ..trainer.trainer import LadderTrainer

    trainer = LadderTrainer(
        model,
        arguments,
        data.train,
        data.monitoring,
        transform=build_views(recipe),
        image_column=recipe.data.image_column,
        label_column=recipe.data.label_column,
        loader_options={
            "shuffle_buffer": recipe.data.shuffle_buffer,
            "max_bad_fraction": recipe.data.max_bad_fraction,
            "bad_images_file": folder / BAD_IMAGES,
        },
    )
    trainer.get_train_dataloader()
    return trainer


def _new_run(recipe: ResolvedRecipe, values: dict[str, Any], data: Data, trainer: "LadderTrainer") -> dict[str, Any]:
    """The content of run.json at a run's first start."""
    return {
        "status": "running",
        "reason": None,
        "method": recipe.model.method,
        "license": recipe.run.license,
        "title": recipe.run.run_name_for_card,
        "recipe": {"name": recipe.name, "text": recorded_text(recipe.text, recipe.values), "values": values},
        "seed": trainer.args.seed,
        "datasets": data.records,
        "images_seen": 0,
        "steps": 0,
        "batch_size": trainer.args.global_batch_size,
        "seconds": 0.0,
        "cpu_seconds": 0.0,
        "hardware": hardware(),
        "versions": versions(),
        "git_commit": git_commit(),
        "started": now(),
        "finished": None,
    }


def _write_card(trainer: "LadderTrainer", folder: Path, recipe: ResolvedRecipe) -> None:
    """The card of a finished run; a card that fails does not undo the run."""
    from ladder_model_cards import CardError, feature_figures, write_card

    try:
        if recipe.run.card_images and trainer.held_out is not None:
            held_out = trainer.held_out
            labels = None if held_out.labels is None else held_out.labels.tolist()
            feature_figures(folder, list(held_out.pixels), folder / "figures", labels=labels)
        write_card(folder)
    except (CardError, OSError) as error:
        print(f"the card was not written: {error}; `ladder card {folder}` tries again")


def _push(trainer: "LadderTrainer", folder: Path) -> None:
    """Publish a finished run; a push that fails does not undo the run."""
    try:
        trainer.push_to_hub(commit_message=f"Publish {folder.resolve().name}")
    except UserError as error:
        again = f"`ladder push {folder} {trainer.hub_model_id}`"
        raise UserError(f"{folder} is finished and whole, but not published ({again} tries again): {error}") from None


@contextlib.contextmanager
def _nothing_left_behind(folder: Path) -> Iterator[None]:
    """On an error, remove the empty folders made in the block (transformers makes its output folder early)."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
