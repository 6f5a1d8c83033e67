"""The published files of a training run: native backbone, preprocessor, `pretraining/` and `run.json`."""

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from transformers import TrainerState

from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

from ..config.arguments import LadderTrainingArguments
from ..loading.progress import say
from ..models.provenance import licence_line, provenance_of
from ..models.published import publish
from ..runs.record import FINISHED, IMPORTED, RUN_FILE, RUNNING, DatasetRecord, RecipeRecord, RunRecord
from ..runs.run_folder import git_commit, hardware, now, versions


@dataclass(frozen=True)
class TrainingRun:
    """What is published of a trainer.

    Attributes:
        model: The model without any wrapper of a distributed run.
        transform: Makes the views; gives the preprocessor its values. None if the data set holds views.
        state: The trainer's state.
        args: The trainer's arguments.
    """

    model: LadderSiameseForPreTraining
    transform: Any
    state: TrainerState
    args: LadderTrainingArguments


def write_published(
    run: TrainingRun, folder: Path, *, pretraining: bool = True, earlier: Path | None = None, **facts: Any
) -> None:
    """Write a run's folder as it is published. A `run.json` of `ladder pretrain` is kept; otherwise one is written.

    Args:
        run: What to publish.
        folder: The folder that gets the files.
        pretraining: Write `pretraining/` too.
        earlier: The run's own folder if `folder` is a copy: `run.json` and the hand-written section of the card are
            taken from there.
        **facts: See `describe`.
    """
    publish(run.model, run.transform, run.state, folder, pretraining=pretraining)
    if earlier is not None:
        for name in (RUN_FILE, "README.md"):
            if (earlier / name).is_file():
                shutil.copy(earlier / name, folder / name)
    record = RunRecord.read(folder)
    before = record
    if record is not None and record.status == IMPORTED:
        record = None  # its weights are replaced now
    if record is None or record.recipe.name is None:
        source = _started_from(facts.get("base") or run.model.name_or_path, run, before)
        record = _updated(record, describe(run, started_from=source, **facts))
        _, line = licence_line(source, facts.get("license")) if source is not None else (None, None)
        if line is not None and run.state.global_step >= run.state.max_steps:  # once, at the end
            say(line)
    elif earlier is None:
        return
    record.steps = run.state.global_step
    record.images_seen = run.state.global_step * run.args.global_batch_size
    record.write(folder)


def describe(
    run: TrainingRun,
    *,
    license: str | None = None,
    title: str | None = None,
    base: str | None = None,
    datasets: str | list[str] | None = None,
    started_from: dict[str, Any] | None = None,
) -> RunRecord:
    """The record of a run that was started from Python, without a recipe.

    Args:
        run: What to describe.
        license: Licence of the weights; None takes that of the model that training started from.
        title: Title of the card.
        base: Hub name of the model that training started from.
        datasets: Hub name or names of the training images.
        started_from: What is known of that model (`provenance_of`); None for a new network.
    """
    args, state = run.args, run.state
    if started_from is not None and started_from["license"] is not None:
        license = licence_line(started_from, license)[0]
    names = [datasets] if isinstance(datasets, str) else list(datasets or [])
    seconds = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    done = 0 < state.max_steps <= state.global_step
    values = {
        "optimizer": args.optimizer,
        "learning_rate": args.peak_learning_rate,
        "weight_decay": args.weight_decay,
        "from_model": base,
        "image_size": getattr(run.transform, "size", None),
    }
    return RunRecord(
        status=FINISHED if done else RUNNING,
        method=_method(run.model.config),
        license=license,
        started_from=started_from,
        title=title,
        recipe=RecipeRecord(values={name: value for name, value in values.items() if value is not None}),
        seed=args.seed,
        datasets=[DatasetRecord(name=name, hub=name) for name in names],
        batch_size=args.global_batch_size,
        seconds=sum(seconds) if seconds else None,
        hardware=hardware(args.device, args.world_size),
        versions=versions(),
        git_commit=git_commit(),
        finished=now() if done else None,
    )


def _started_from(reference: str, run: TrainingRun, record: RunRecord | None) -> dict[str, Any] | None:
    """What is known of the weights that a model was read from; None for a new network.

    Args:
        reference: What the model was read from; "" if it was made from a config.
        run: The run. A model that was read from its own folder goes on with it: what its record says stays.
        record: The run's earlier record, which is not looked up again for the same model.
    """
    own = Path(run.args.output_dir or ".").resolve()
    path = Path(reference).expanduser().resolve() if reference else None
    was_imported = record is not None and record.status == IMPORTED
    earlier = None if record is None or was_imported else record.started_from
    inside = path is not None and path.parent == own and path.name.startswith(("pretraining", "checkpoint-"))
    if path == own or inside:
        return provenance_of(str(own)) if was_imported else earlier
    if not reference or (earlier is not None and earlier.get("model") == reference):
        return earlier
    return provenance_of(reference)


def _method(config: LadderSiameseConfig) -> str:
    """The method that a network's levels and target amount to."""
    levels = config.levels
    if len(levels) != 1 or levels[0][:2] != (config.stages[-1], "global"):
        return "ladder"
    return "simsiam" if config.target == "stop_gradient" else "byol"


def _updated(earlier: RunRecord | None, described: RunRecord) -> RunRecord:
    """An earlier record with everything that a new description knows; what it does not know stays."""
    if earlier is None:
        return described
    known = {item.name: getattr(described, item.name) for item in fields(described)}
    return replace(earlier, **{name: value for name, value in known.items() if value})
