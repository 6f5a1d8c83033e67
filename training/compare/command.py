"""`ladder compare`: plan the work, do what is missing, write the table and the figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.shell import ladder_command
from ..errors import UserError
from ..files import write_text
from ..runs.lock import FolderLock
from ..runs.run_folder import LOCK
from .cells import PRETRAIN
from .evaluations import Evaluation, check_data, missing_labels
from .options import CompareOptions
from .plan import Plan, make_plan
from .report import JSON_FILE, TABLE_FILE, grid, results_table, write_report
from .results import read_evaluation
from .schedule import run_all
from .summary import summarise_comparison
from .training_cell import has_weights
from .work import LOGS, WorkItem, missing_cells, say_with_time, work_items


def compare_command(options: CompareOptions) -> int:
    """Compare methods. The same command again does only what is missing.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the recipe, a method, an evaluation or the output folder cannot be used.
    """
    plan = make_plan(options)
    _leave_out_unlabelled(plan)
    everything = work_items(plan)
    items = [item for item in everything if missing_cells(plan, item)]
    if items:
        _check_evaluations(plan)
        _check_training(plan, items)
    with _lock(plan.folder):
        if items:
            say_with_time(f"{len(items)} of {len(everything)} runs have cells to make in {plan.folder}")
            run_all(plan, items, options.jobs, lambda: write_report(plan.folder, summarise_comparison(plan), []))
        else:
            say_with_time(f"nothing to make: {plan.folder} has the cells of all {len(everything)} runs")
        summary = summarise_comparison(plan)
        figures = _draw(plan, summary)
        write_report(plan.folder, summary, figures)
    print(grid(*results_table(summary)))
    for note in plan.notes:
        print(f"note: {note}")
    print(f"written to {plan.folder / TABLE_FILE}, {plan.folder / JSON_FILE} and {plan.folder / 'figures'}")
    print(f"next: {ladder_command('report', str(plan.folder))}  (the comparison as one HTML page)")
    return 0


def _draw(plan: Plan, summary: dict[str, Any]) -> list[str]:
    """Draw all figures, delete those of an earlier comparison, and return the names of the new ones."""
    from .figures import comparison_figures

    folder, figures = plan.folder / "figures", comparison_figures(summary)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, png in figures.items():
        (folder / name).write_bytes(png)
    return list(figures)


def _leave_out_unlabelled(plan: Plan) -> None:
    """Drop the default evaluations if the data has no labels, and add a note that says so."""
    reasons: dict[str, str | None] = {}
    for evaluation in list(plan.evaluations):
        if not evaluation.by_default or _has_cell(plan, evaluation):
            continue
        if evaluation.dataset not in reasons:
            reasons[evaluation.dataset] = missing_labels(evaluation)
        if reasons[evaluation.dataset] is not None:
            plan.evaluations.remove(evaluation)
            plan.notes.append(f"{evaluation.key} is left out: {reasons[evaluation.dataset]}")


def _has_cell(plan: Plan, evaluation: Evaluation) -> bool:
    """Tell whether the evaluation has a cell: then it is possible, and the data is not needed to find out."""
    return any(
        read_evaluation(plan, method, seed, evaluation) is not None for method in plan.methods for seed in plan.seeds
    )


def _check_evaluations(plan: Plan) -> None:
    """Check that every data set that is still evaluated on can be used.

    Raises:
        UserError: there is no such data set, split or column.
    """
    # Repeats read the same data, so one check per row is enough.
    needed = {
        evaluation.row: evaluation
        for evaluation in plan.evaluations
        if any(not read_evaluation(plan, method, seed, evaluation) for method in plan.methods for seed in plan.seeds)
    }
    for evaluation in needed.values():
        check_data(evaluation)


def _check_training(plan: Plan, items: list[WorkItem]) -> None:
    """Check that the images and the weights with which the missing runs begin can be read, also those of variants.

    Args:
        plan: The comparison.
        items: Work items with missing cells.

    Raises:
        UserError: a data set, a split or a model cannot be used; the message names the method.
    """
    from ..pretraining.build import build_model, load_data

    seen: set[str] = set()
    for item in items:
        method = plan.method(item.method)
        if method.weights is not None:
            continue
        if item.point is None and PRETRAIN not in missing_cells(plan, item) and has_weights(plan, method, item.seed):
            continue
        recipe = plan.recipe(method, item.seed)
        begins_with: dict[str, Any] = asdict(recipe.data) | {"from_model": recipe.model.from_model}
        key = json.dumps(begins_with, sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        try:
            if method.trained:
                load_data(recipe)
            if recipe.model.from_model is not None:
                build_model(recipe)
        except UserError as error:
            raise UserError(f"method {method.name}: {error}") from error


def _lock(folder: Path) -> FolderLock:
    """Keep a second comparison out of the folder. Cells, table and figures belong in git; weights and logs do not."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        write_text(folder / ".gitignore", f"{LOGS}/\nruns/\n")
    return FolderLock(folder, "`ladder compare`", folder / LOGS / LOCK)
