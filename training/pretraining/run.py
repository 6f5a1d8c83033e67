"""`ladder pretrain`: train from a recipe to a folder that can be published. The same command resumes a run."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed

from ..config.recipe import ResolvedRecipe
from ..config.shell import ladder_command
from ..data.columns import check_image_column, find_label_column, own_column
from ..errors import TrainingStopped, UserError, said_once_per_machine, system_error, worker_death
from ..files import write_text
from ..loading.depth import say_if_dark
from ..models.provenance import licence_line, provenance_of
from ..models.published import TRAINER_STATE, publish
from ..models.weight_files import hash_of_weights
from ..runs.agreement import all_or_none, chosen_by_first
from ..runs.checkpoints import is_leftover, list_checkpoints, remove_leftovers
from ..runs.data_files import changed_data, write_data_files
from ..runs.interruption import Interrupted
from ..runs.lock import FolderLock
from ..runs.record import FINISHED, RecipeRecord, RunRecord
from ..runs.run_folder import (
    LOCK,
    PRETRAINING,
    check_output,
    command_line,
    git_commit,
    hardware,
    now,
    recorded_text,
    recorded_values,
    versions,
)
from ..trainer.resuming import agreed_checkpoint
from .build import Data, build_model, build_views, load_data, training_arguments
from .planner import PLAN, RECIPE_FILE

if TYPE_CHECKING:
    from ..trainer.trainer import LadderTrainer

BAD_IMAGES, CARD = "bad_images.jsonl", "README.md"
WEIGHTS = "weights"
"""Key of the hash in `started_from`."""


class RecordCallback(TrainerCallback):
    """Keeps `run.json` up to date during a run: steps, images seen, and seconds over all starts.

    Args:
        folder: The run's folder.
        record: The run's record, read from the folder or new.
        batch_size: Images per optimizer step, over all devices.
    """

    def __init__(self, folder: Path, record: RunRecord, batch_size: int) -> None:
        self.folder, self.record, self.batch_size = folder, record, batch_size
        self._seconds_before, self._started = record.seconds or 0.0, time.monotonic()
        self._cpu_before, self._cpu_started = record.cpu_seconds or 0.0, _cpu_seconds()

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the seconds up to this checkpoint; a run that resumes from it counts on from there."""
        self.update(state)

    def update(self, state: TrainerState) -> None:
        """Bring the record up to the trainer's state, and write it in the main process."""
        record = self.record
        record.steps = state.global_step
        record.images_seen = state.global_step * self.batch_size
        record.seconds = round(self._seconds_before + time.monotonic() - self._started, 1)
        record.cpu_seconds = round(self._cpu_before + _cpu_seconds() - self._cpu_started, 1)
        if state.is_world_process_zero:
            record.write(self.folder)


def pretrain(recipe: ResolvedRecipe) -> int:
    """Pretrain as a recipe says, or resume the run in its output folder.

    Args:
        recipe: From `resolve`.

    Returns:
        The exit code 0.

    Raises:
        UserError: the recipe, the data or the output folder cannot be used. Nothing is written in this case.
        TrainingStopped: training must not continue, for example because a level has collapsed. `run.json` records why.
        Interrupted: a signal asked the process to end; the same command goes on from a checkpoint of the last step.
    """
    folder = _folder(recipe)
    values = recorded_values({**recipe.values, "output": str(folder)})
    with said_once_per_machine():
        check_output(folder, values)
    with _nothing_left_behind(folder), contextlib.ExitStack() as held:
        arguments = training_arguments(recipe, folder)  # with it, the processes know each other
        earlier = chosen_by_first(lambda: check_output(folder, values))
        if not _is_done(earlier, folder, recipe):
            first = arguments.process_index == 0
            lock = FolderLock(folder, "`ladder pretrain`", joins=not first)
            chosen_by_first(lambda: held.enter_context(lock) and None)
            all_or_none(lambda: None if first else held.enter_context(lock) and None)
            # Another process may have worked here until now.
            earlier = chosen_by_first(lambda: check_output(folder, values))
        if _is_done(earlier, folder, recipe):
            if arguments.process_index == 0:
                _tell_finished(earlier, folder, recipe)
            return 0
        data, trainer = all_or_none(lambda: _build(recipe, folder, arguments, earlier))
        checkpoint = agreed_checkpoint(folder, arguments.process_index)
        # Without a checkpoint the run starts again, and so does its record.
        record = None if checkpoint is None else earlier
        if record is None:
            record = _new_record(recipe, values, data, trainer)
        else:
            _compare_versions(record, trainer.is_world_process_zero())
            record.datasets = data.records
        record.start(command_line())
        keeper = RecordCallback(folder, record, arguments.global_batch_size)
        trainer.add_callback(keeper)
        if trainer.is_world_process_zero():
            record.write(folder)
            write_data_files(folder, data.files)
            if recipe.name == PLAN:
                write_text(folder / RECIPE_FILE, record.recipe.text)
        with trainer.stop_request:
            _train_and_publish(trainer, folder, keeper, checkpoint)
            if trainer.is_world_process_zero():
                _write_card(trainer, folder, recipe)
        if arguments.push_to_hub:
            _push(trainer, folder)
        if trainer.is_world_process_zero():
            print(f"finished: {folder} holds the backbone, its card and {PRETRAINING}/")
            print(f"next: {_next(recipe, folder, data)}")
        trainer.accelerator.wait_for_everyone()
    return 0


def _folder(recipe: ResolvedRecipe) -> Path:
    """Return the run's folder.

    Raises:
        UserError: `~` stands for a user that does not exist.
    """
    try:
        return Path(recipe.run.output or f"runs/{recipe.name}").expanduser()
    except RuntimeError as error:
        raise UserError(f"output {recipe.run.output}: {error}") from error


def _train_and_publish(trainer: "LadderTrainer", folder: Path, keeper: RecordCallback, checkpoint: Path | None) -> None:
    """Train to the last step, and write the run's own files. `run.json` records how it ended."""
    record = keeper.record
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
        if state.global_step < state.max_steps:
            raise UserError(
                f"training ended at step {state.global_step} of {state.max_steps}: the run is not finished, and "
                "nothing is published; the same command goes on from the last checkpoint"
            )
        trainer.end_if_asked()
        if trainer.args.load_best_model_at_end and state.best_model_checkpoint:
            metric, value = trainer.args.metric_for_best_model, state.best_metric
            record.best = {"step": state.best_global_step, "metric": metric, "value": value}
            if trainer.is_world_process_zero():
                best = f"{metric} {value:.4g}"
                print(f"the weights that are published are those of step {state.best_global_step}, the best: {best}")
        if trainer.is_world_process_zero():
            publish(trainer.pretraining_model, trainer.transform, state, folder)
        trainer.end_if_asked()
    except TrainingStopped as error:
        if trainer.is_world_process_zero():
            trainer.state.save_to_json(str(folder / TRAINER_STATE))
        record.stop(error)
        keeper.update(trainer.state)
        raise
    except (Interrupted, KeyboardInterrupt, Exception) as error:
        refused = None if isinstance(error, UserError) else worker_death(error) or system_error(error)
        record.interrupt(str(refused or " ".join(str(error).split()) or type(error).__name__))
        with contextlib.suppress(OSError):  # the first error says more
            keeper.update(trainer.state)
        if refused is None:
            raise
        raise UserError(f"{refused}; the same command goes on from the last checkpoint in {folder}") from error
    record.status, record.finished = FINISHED, now()
    keeper.update(trainer.state)


def _is_done(earlier: RunRecord | None, folder: Path, recipe: ResolvedRecipe) -> bool:
    """Tell whether the run is finished and nothing of it needs the trainer: a card with images does."""
    if earlier is None or earlier.status != FINISHED:
        return False
    return not recipe.run.card_images or (folder / CARD).is_file() or not list_checkpoints(folder)


def _tell_finished(earlier: RunRecord | None, folder: Path, recipe: ResolvedRecipe) -> None:
    """Say that the run is finished, and write its card if the run was killed before."""
    if any(is_leftover(path) or path.name == LOCK for path in folder.iterdir()):
        # A kill after the last file leaves them. Where they cannot be removed, or another process is here, they stay.
        with contextlib.suppress(UserError, OSError), FolderLock(folder, "`ladder pretrain`"):
            remove_leftovers(folder)
    if not (folder / CARD).is_file():
        _write_card(None, folder, recipe)
    steps = earlier.steps if earlier else 0
    push = "; `ladder push` publishes it" if recipe.arguments.get("push_to_hub") else ""
    print(f"{folder} is finished: {steps} steps; evaluate it with `ladder evaluate knn --model {folder}`{push}")


def _compare_versions(record: RunRecord, say: bool) -> None:
    """Record with which other versions a run goes on, and say it."""
    differing = {name: version for name, version in versions().items() if record.versions.get(name, version) != version}
    if not differing:
        return
    record.resumed_with.append({"step": record.steps, "versions": differing})
    if say:
        changes = ", ".join(f"{name} {record.versions[name]} -> {version}" for name, version in differing.items())
        print(f"this run began with other versions ({changes}): it goes on, but not to the same bits", file=sys.stderr)


def _next(recipe: ResolvedRecipe, folder: Path, data: Data) -> str:
    """The command that comes next: an evaluation on the run's own data set, or its features where it has no labels."""
    options, model = recipe.data, str(folder)
    elsewhere = ladder_command("evaluate knn", model=model, dataset="LABELLED_DATASET")
    names = [options.dataset] if isinstance(options.dataset, str) else options.dataset or []
    if len(names) != 1:
        return elsewhere
    known = {"model": model, "dataset": names[0]}
    same = {name: getattr(options, name) for name in ("image_column", "trust_paths", "streaming")}
    if _has_classes(data.train, options.label_column):
        return ladder_command("evaluate knn", **known, label_column=options.label_column, **same)
    embed = ladder_command("embed", **known, output=str(folder / "embeddings.parquet"), **same)
    return f"{embed}  (it has no labels; where you have some: {elsewhere})"


def _has_classes(dataset: Any, asked: str | None) -> bool:
    """Whether a data set has a column of labels, which may be named, of more classes than one."""
    label = find_label_column(dataset) if asked is None else asked
    columns = getattr(dataset, "column_names", None) or [label]
    if label is None or label not in columns:
        return False
    names = getattr((getattr(dataset, "features", None) or {}).get(label), "names", None)
    return names is None or len(names) > 1


def _cpu_seconds() -> float:
    """Return the processor time of this process and its finished children, in seconds, over all cores."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _build(
    recipe: ResolvedRecipe, folder: Path, arguments: Any, earlier: RunRecord | None
) -> tuple[Data, "LadderTrainer"]:
    """Build the trainer and its data loader, so that every mistake in the data raises before anything is written."""
    from ..trainer.trainer import LadderTrainer

    set_seed(arguments.seed)
    model = build_model(recipe)
    _check_start(recipe, folder, earlier)
    data = load_data(recipe, earlier)
    for name, part in zip(data.records, getattr(data.train, "datasets", [data.train]), strict=True):
        column = check_image_column(part, own_column(part, recipe.data.image_column))
        say_if_dark(name.name, part, column, recipe.data.image_range)
    changed = changed_data(folder, list(data.files), data.files) if list_checkpoints(folder) else []
    if changed and not recipe.data.accept_changed_data:
        raise UserError(
            f"the data have changed since the run in {folder} began: {'; '.join(changed)}; --accept_changed_data true "
            "goes on with them, from the next pass on, or choose another --output"
        )
    data.notes += [f"changed since the run began: {difference}" for difference in changed]
    if arguments.process_index == 0:
        for line in data.notes:
            print(line)
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
            "data_changed": bool(changed),
        },
    )
    trainer.get_train_dataloader()
    return data, trainer


def _check_start(recipe: ResolvedRecipe, folder: Path, earlier: RunRecord | None) -> None:
    """Check that the weights to start from are still those with which the run that goes on began.

    Raises:
        UserError: they are others. Weights of which one hash is not known count as the same.
    """
    model = recipe.model.from_model
    if model is None or earlier is None or not list_checkpoints(folder):
        return
    began, today = (earlier.started_from or {}).get(WEIGHTS), hash_of_weights(model)
    if None not in (began, today) and began != today:
        raise UserError(
            f"{model} holds other weights (sha256 {today}) than those with which the run in {folder} began ({began}): "
            "put those back, or choose another --output to start from the new ones"
        )


def _new_record(recipe: ResolvedRecipe, values: dict[str, Any], data: Data, trainer: "LadderTrainer") -> RunRecord:
    """Make the record of a run at its first start, and say which licence it has from the weights it starts with."""
    source, licence = None, recipe.run.license
    if recipe.model.from_model is not None:
        source = chosen_by_first(lambda: _started_from(str(recipe.model.from_model)))
        licence, line = licence_line(source, licence)
        if line is not None and trainer.is_world_process_zero():
            print(line)
    return RunRecord(
        method=recipe.model.method,
        license=licence,
        started_from=source,
        title=recipe.run.run_name_for_card,
        recipe=RecipeRecord(recipe.name, recorded_text(recipe.text, recipe.values), values),
        seed=trainer.args.seed,
        datasets=data.records,
        monitoring_images=0 if trainer.held_out is None else len(trainer.held_out),
        batch_size=trainer.args.global_batch_size,
        seconds=0.0,
        cpu_seconds=0.0,
        hardware=hardware(trainer.args.device, trainer.args.world_size),
        versions=versions(),
        git_commit=git_commit(),
        started=now(),
    )


def _started_from(model: str) -> dict[str, Any]:
    """What is known of the weights that a run starts with, and what tells them from others."""
    return {**provenance_of(model), WEIGHTS: hash_of_weights(model)}


def _write_card(trainer: "LadderTrainer | None", folder: Path, recipe: ResolvedRecipe) -> None:
    """Write the card of a finished run. If that fails, say so: the run itself is finished."""
    from ladder_model_cards import CardError, feature_figures, write_card

    try:
        if recipe.run.card_images and trainer is not None and trainer.held_out is not None:
            held_out = trainer.held_out
            labels = None if held_out.labels is None else held_out.labels.tolist()
            feature_figures(folder, list(held_out.pixels), folder / "figures", labels=labels)
        write_card(folder)
    except (CardError, OSError) as error:
        print(f"the card was not written: {error}; `ladder card {folder}` tries again")


def _push(trainer: "LadderTrainer", folder: Path) -> None:
    """Push a finished run. If that fails or is interrupted, the message says that the run itself is finished."""
    args = trainer.args
    again = ladder_command(
        "push",
        str(folder),
        str(trainer.hub_model_id),
        private=args.hub_private_repo,
        pretraining=trainer.sends_pretraining,
        revision=args.hub_revision,
    )
    try:
        trainer.push_to_hub(commit_message=f"Publish {folder.resolve().name}")
    except UserError as error:
        failed = UserError(f"{folder} is finished and complete, but not published (`{again}` tries again): {error}")
        failed.shared = error.shared
        raise failed from None
    except (Interrupted, KeyboardInterrupt) as error:
        ended = Interrupted(error.number if isinstance(error, Interrupted) else signal.SIGINT)
        ended.then = f"{folder} is finished and complete, and `{again}` publishes it"
        raise ended from None


@contextlib.contextmanager
def _nothing_left_behind(folder: Path) -> Iterator[None]:
    """After an error, remove the empty folders that the block created: transformers creates its output folder early."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
