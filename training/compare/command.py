"""`ladder compare`: plan, do what is missing, write the table and the figures."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_text
from .evaluations import Evaluation, check_data, missing_labels
from .options import CompareOptions
from .plan import Plan, make_plan
from .report import JSON_FILE, TABLE_FILE, grid, results_table, write_report
from .results import read_evaluation
from .schedule import run_all
from .summary import summarise_comparison
from .work import LOGS, missing_work, say_with_time, units_of


def compare_command(options: CompareOptions) -> int:
    """Compare methods; the same command again does what is missing, and only that.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: the recipe, a method, an evaluation or the output folder does not fit.
    """
    plan = make_plan(options)
    _leave_out_unlabelled(plan)
    units = [unit for unit in units_of(plan) if missing_work(plan, unit)]
    with _alone_in(plan.folder):
        if units:
            _check_datasets(plan)
            say_with_time(f"{len(units)} of {len(units_of(plan))} runs have cells to make in {plan.folder}")
            run_all(plan, units, options.jobs, lambda: write_report(plan.folder, summarise_comparison(plan), []))
        summary = summarise_comparison(plan)
        figures = _draw(plan, summary)
        write_report(plan.folder, summary, figures)
    print(grid(*results_table(summary)))
    for note in plan.notes:
        print(f"note: {note}")
    print(f"written to {plan.folder / TABLE_FILE}, {plan.folder / JSON_FILE} and {plan.folder / 'figures'}")
    return 0


def _draw(plan: Plan, summary: dict[str, Any]) -> list[str]:
    """Draw all figures anew; their names. Pictures of an earlier comparison that this one does not have go."""
    from .figures import comparison_figures

    folder, pictures = plan.folder / "figures", comparison_figures(summary)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture)
    return list(pictures)


def _leave_out_unlabelled(plan: Plan) -> None:
    """Drop evaluations that nobody asked for where the data has no labels, with a note."""
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
    """Whether the evaluation was made before, so that the data need not be there to know that it can be."""
    return any(
        read_evaluation(plan, method, seed, evaluation) is not None for method in plan.methods for seed in plan.seeds
    )


def _check_datasets(plan: Plan) -> None:
    """Every data set that is still needed must be there before the first step is made."""
    # Repeats read the same data: once for a row is enough.
    needed = {
        evaluation.row: evaluation
        for evaluation in plan.evaluations
        if any(not read_evaluation(plan, method, seed, evaluation) for method in plan.methods for seed in plan.seeds)
    }
    for evaluation in needed.values():
        check_data(evaluation)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second comparison out of the folder while this one works there.

    Raises:
        UserError: another one is at work.
    """
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        # Cells, table and figures are for git; weights and logs are not.
        write_text(folder / ".gitignore", f"{LOGS}/\nruns/\n")
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / LOGS / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another `ladder compare` is at work in {folder}: wait, or choose another --output"
            ) from error
        yield
