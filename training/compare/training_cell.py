"""The cells of pretraining, whole and short runs: the run itself, and the part of its log that the figures need."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.recipe import ResolvedRecipe
from ..errors import LevelCollapsed, TrainingStopped, UserError
from ..files import folder_written_at_once
from ..models.processor import image_processor
from ..pretraining.build import build_model, build_views
from ..runs.checkpoints import list_checkpoints
from ..runs.record import FINISHED, RunRecord
from ..runs.run_folder import PRETRAINING, differing_fields, git_commit, hardware, recorded_values
from .cells import COLLAPSED, DONE, PRETRAIN, STOPPED, Cells, scrubbed
from .contents import CONTENT
from .fingerprints import DATA_FIELDS, data_name, is_local, run_fingerprint
from .given_weights import given_cell
from .grid import Point, threshold, verdict

if TYPE_CHECKING:
    from .plan import Method, Plan

LOG_POINTS = 100
GROUPS = ("loss", "batch_std", "knn", "std", "rank")


def pretrain_quietly(recipe: ResolvedRecipe, folder: Path) -> dict[str, Any]:
    """Run a recipe to its end, or continue it. A run that is stopped, e.g. by a collapse, is no error here.

    Args:
        recipe: Of the run; its output is `folder`.
        folder: Of the run.

    Returns:
        "status", "reason", "steps", "images_seen", "batch_size", "seconds", "cpu_seconds", "log", "hardware".

    Raises:
        UserError: as `pretrain`.
    """
    from ..models.published import TRAINER_STATE
    from ..pretraining.run import pretrain

    with contextlib.suppress(TrainingStopped):  # run.json says why
        pretrain(recipe)
    run = RunRecord.read(folder)
    assert run is not None  # pretraining has written it
    log = _log_history(folder / TRAINER_STATE)
    reason = run.reason
    status = DONE if run.status == FINISHED else COLLAPSED if run.stopped_by == LevelCollapsed.kind else STOPPED
    names = ("steps", "images_seen", "batch_size", "seconds", "cpu_seconds", "hardware", "git_commit")
    return {
        "status": status,
        "reason": reason and scrubbed(reason, folder, *_data_paths(recipe)),
        **{name: getattr(run, name) for name in names},
        "log": log,
    }


def make_training_cell(plan: "Plan", method: "Method", seed: int) -> dict[str, Any]:
    """Pretrain one method with one seed and write its cell.

    Returns:
        The cell's content.
    """
    recipe, folder = plan.recipe(method, seed), plan.run_folder(method.name, f"seed-{seed}")
    fingerprint = plan.fingerprint(method, seed)
    if method.weights is not None:
        content = given_cell(folder)
    else:
        _make_room(plan, folder, recipe, started_otherwise=_is_started_otherwise(plan, method, seed))
        content = _trained(recipe, folder) if method.trained else _untrained(recipe, folder)
    Cells(plan.folder, plan.redo).write(method.name, seed, PRETRAIN, fingerprint, content)
    return content


def _trained(recipe: ResolvedRecipe, folder: Path) -> dict[str, Any]:
    content = pretrain_quietly(recipe, folder)
    return content | {"log": thinned_log(content["log"])}


def _untrained(recipe: ResolvedRecipe, folder: Path) -> dict[str, Any]:
    write_untrained(recipe, folder)
    content = {"status": DONE, "reason": None, "steps": 0, "images_seen": 0, "seconds": 0.0, "cpu_seconds": 0.0}
    return content | {"log": {}, "hardware": hardware(), "git_commit": git_commit()}


def ensure_weights(plan: "Plan", method: "Method", seed: int) -> bool:
    """Make sure that the weights of a run with a cell exist; pretrain again if they were deleted.

    Returns:
        Whether the network was pretrained again.

    Raises:
        TrainingStopped: this time the run was stopped.
        UserError: the weights were to be given, and are gone.
    """
    folder = plan.run_folder(method.name, f"seed-{seed}")
    if has_weights(plan, method, seed):
        return False
    if method.weights is not None:
        raise UserError(f"method {method.name}: {folder} holds no backbone, and this comparison does not train it")
    recipe = plan.recipe(method, seed)
    if not method.trained:
        write_untrained(recipe, folder)
        return False
    _make_room(plan, folder, recipe)
    content = pretrain_quietly(recipe, folder)
    if content["status"] != DONE:
        raise TrainingStopped(content["reason"])
    return True


def has_weights(plan: "Plan", method: "Method", seed: int) -> bool:
    """Tell whether a run's folder holds the weights of the finished run."""
    folder = plan.run_folder(method.name, f"seed-{seed}")
    if not (folder / "config.json").is_file():
        return False
    if method.weights is not None:
        return True
    run = RunRecord.read(folder)
    finished = run is not None and run.status == FINISHED
    return not method.trained or (finished and not _is_another_run(plan, folder, plan.recipe(method, seed)))


def write_untrained(recipe: ResolvedRecipe, folder: Path) -> None:
    """Write the untrained network with which a run of this recipe starts, in the form that evaluations read."""
    from transformers import set_seed

    from modeling_ladder import save_native_backbone

    set_seed(int(recipe.values["seed"]))
    model, transform = build_model(recipe), build_views(recipe)
    with folder_written_at_once(folder) as temporary:
        save_native_backbone(model, temporary)
        image_processor(transform.size, tuple(transform.mean), tuple(transform.std)).save_pretrained(temporary)


def remove_checkpoints(folder: Path) -> None:
    """Remove a finished run's checkpoint-N folders, but not the final weights and `pretraining/`."""
    if (folder / PRETRAINING / "config.json").is_file():
        for checkpoint in list_checkpoints(folder):
            shutil.rmtree(checkpoint, ignore_errors=True)


def thinned_log(log: list[dict[str, Any]]) -> dict[str, dict[str, list[float | None]]]:
    """Convert a log to columns, with fewer points.

    Losses are thinned evenly to about `LOG_POINTS` steps that include the last one. Values measured on held-out images
    are all kept.

    Args:
        log: transformers' `log_history`.

    Returns:
        "loss", "batch_std", "knn", "std" and "rank", as far as they were logged, each {"step": [...], NAME: [...]}.
    """
    columns: dict[str, dict[str, list[float | None]]] = {}
    for group in GROUPS:
        prefix = f"{group}/"
        rows = {int(entry["step"]): entry for entry in log if any(str(key).startswith(prefix) for key in entry)}
        if not rows:
            continue
        steps = sorted(rows)
        if group in ("loss", "batch_std"):
            stride = -(-len(steps) // LOG_POINTS)
            steps = steps[::-1][::stride][::-1]
        names = sorted({key for step in steps for key in rows[step] if str(key).startswith(prefix)}, key=_in_order)
        columns[group] = {"step": list(steps)}
        for name in names:
            columns[group][name.removeprefix(prefix)] = [rows[step].get(name) for step in steps]
        if group == "loss":
            columns[group]["total"] = [rows[step].get("loss") for step in steps]
    return columns


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts stage2 before stage10, and "all" after every stage."""
    parts = re.split(r"(\d+)", name)
    last = [(1, "")] if name.endswith("/all") else [(0, "")]
    return last + [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _log_history(path: Path) -> list[dict[str, Any]]:
    """Read the log of a run; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8"))["log_history"] if path.is_file() else []


def _make_room(plan: "Plan", folder: Path, recipe: ResolvedRecipe, started_otherwise: bool = False) -> None:
    """Make sure that a folder holds no other run than the one that is to begin or to go on there.

    Args:
        plan: With `redo`, another run is deleted.
        folder: Of the run.
        recipe: Of the run.
        started_otherwise: Whether the run there is known to have started from other weights.

    Raises:
        UserError: without `redo`, the run there began with other images. What else differs, `pretrain` says.
    """
    if plan.redo and (started_otherwise or _is_another_run(plan, folder, recipe)):
        shutil.rmtree(folder, ignore_errors=True)
    elif plan.contents.are_those_of(folder, recipe) is False:
        raise UserError(
            f"{folder} holds a run that began with other images than {_joined(recipe.data.dataset)} holds now: --redo "
            "begins it anew, or choose another --output"
        )


def _is_started_otherwise(plan: "Plan", method: "Method", seed: int) -> bool:
    """Tell whether the cell of a run says that it started from other weights than the recipe names now."""
    name = "from_model" + CONTENT
    try:
        text = Cells(plan.folder).path(method.name, seed, PRETRAIN).read_text(encoding="utf-8")
        saved = json.loads(text)["fingerprint"].get(name)
    except FileNotFoundError:
        return False
    return saved is not None and saved != plan.fingerprint(method, seed).get(name, saved)


def _is_another_run(plan: "Plan", folder: Path, recipe: ResolvedRecipe) -> bool:
    """Tell whether a folder holds the run of another recipe or images. Other paths to the same data do not count."""
    run = RunRecord.read(folder)
    if run is None:
        return False
    same_images = plan.contents.are_those_of(folder, recipe)
    if same_images is False:
        return True
    saved, wanted = ({**values} for values in (run.recipe.values, recorded_values(recipe.values)))
    for values in (saved, wanted):
        values |= {name: data_name(values[name]) for name in DATA_FIELDS if name in values}
        if same_images:
            values["dataset"] = None
    return bool(differing_fields(saved, wanted))


def _joined(names: str | list[str] | None) -> str:
    """Name one data set, or all of a mixture."""
    return names if isinstance(names, str) else " and ".join(names or [])


def _data_paths(recipe: ResolvedRecipe) -> list[str]:
    """List the recipe's data sets that lie on this machine."""
    names = recipe.data.dataset
    return [name for name in ([names] if isinstance(names, str) else names or []) if is_local(name)]


def run_point(plan: "Plan", method: "Method", point: Point) -> dict[str, Any]:
    """Make one short run, write its cell, and delete the rest of the run.

    Returns:
        The cell's content.
    """
    grid = plan.grid
    recipe = plan.recipe(method, grid.seed, point.key, **grid.changes(point))
    folder = plan.run_folder(method.name, point.key)
    # An interrupted short run has no checkpoint to continue from.
    shutil.rmtree(folder, ignore_errors=True)
    run = pretrain_quietly(recipe, folder)
    content = {
        "learning_rate": point.learning_rate,
        "batch_size": point.batch_size,
        **{name: run[name] for name in ("status", "reason", "steps", "seconds", "cpu_seconds")},
        **verdict(run["log"], run["status"], threshold(recipe)),
        "log": thinned_log(run["log"]),
    }
    fingerprint = run_fingerprint(recipe, plan.contents)
    Cells(plan.folder, plan.redo).write(method.name, grid.seed, point.key, fingerprint, content)
    shutil.rmtree(folder, ignore_errors=True)
    return content
