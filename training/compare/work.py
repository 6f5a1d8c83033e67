"""The work of one method and one seed: pretraining, evaluations, gradient shares. What is done is not repeated."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import TrainingStopped, UserError
from .cells import DONE, GRADIENTS, PRETRAIN, STOPPED, Cells, metrics_of, scrubbed
from .evaluations import Evaluation
from .grid import Point
from .plan import Method, Plan
from .results import (
    evaluation_fingerprint,
    gradients_fingerprint,
    read_evaluation,
    read_gradients,
    read_point,
    read_pretrain,
)
from .training_cell import ensure_weights, has_weights, make_training_cell, remove_checkpoints, run_point

LOGS = "logs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class WorkItem:
    """The work that one process does without interruption.

    Attributes:
        method: Name of the method.
        seed: Seed of the run.
        point: A short run of the stability grid, or None for all other work of the method with this seed.
    """

    method: str
    seed: int
    point: Point | None = None

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}" + (f" {self.point.key}" if self.point else "")


def work_items(plan: Plan) -> list[WorkItem]:
    """List all work in its order: seed by seed, so that differences can be paired early, and short runs last."""
    items = [WorkItem(method.name, seed) for seed in plan.seeds for method in plan.methods]
    if plan.stability:
        trained = [method for method in plan.methods if method.trained_here]
        items += [
            WorkItem(method.name, plan.stability.seed, point) for point in plan.stability.points for method in trained
        ]
    return items


def missing_cells(plan: Plan, item: WorkItem) -> list[str]:
    """List the names of the cells that a work item has yet to make.

    Raises:
        UserError: a cell was made with other settings.
    """
    method = plan.method(item.method)
    if item.point:
        return [] if read_point(plan, method, item.point) else [item.point.key]
    pretrain = read_pretrain(plan, method, item.seed)
    missing = [] if pretrain else [PRETRAIN]
    evaluations = [other.key for other in plan.evaluations if not read_evaluation(plan, method, item.seed, other)]
    if pretrain and pretrain["status"] != DONE:
        return []
    missing += evaluations
    if plan.gradients and method.trained_here and not read_gradients(plan, method, item.seed):
        # Gradients alone are not worth pretraining again.
        missing += [GRADIENTS] if missing or has_weights(plan, method, item.seed) else []
    return missing


def do_work(plan: Plan, item: WorkItem, say: Say | None = None) -> None:
    """Do what is missing of a work item, and write each cell as soon as it is done.

    Args:
        plan: The comparison.
        item: One of `work_items(plan)`.
        say: Called with each line of progress; default: print it with the time.

    Raises:
        UserError: the data or the recipe cannot be used.
    """
    say = say or say_with_time
    missing, method = missing_cells(plan, item), plan.method(item.method)
    if not missing:
        return
    if item.point:
        with _told(say, f"{item}") as told, output_to_log(plan, item):
            content = run_point(plan, method, item.point)
            told.append(_short_run_text(content))
        return
    pretrained_again = False
    if PRETRAIN in missing:
        with _told(say, f"{item} pretraining") as told, output_to_log(plan, item):
            pretrain = make_training_cell(plan, method, item.seed)
            told.append(_pretrain_text(pretrain))
        if pretrain["status"] != DONE:
            return
    elif missing:
        try:
            gone = method.trained_here and not has_weights(plan, method, item.seed)
            again = _told(say, f"{item} pretraining again, its weights are gone") if gone else contextlib.nullcontext()
            with again, output_to_log(plan, item):
                pretrained_again = ensure_weights(plan, method, item.seed)
        except TrainingStopped as error:
            say(f"{item}: this time pretraining stopped ({error}); its missing evaluations stay missing")
            return
    for evaluation in plan.evaluations:
        if evaluation.key in missing:
            with _told(say, f"{item} {evaluation.key}") as told, output_to_log(plan, item):
                content = make_evaluation_cell(plan, method, item.seed, evaluation, pretrained_again)
                told.append(_evaluation_text(content))
    if GRADIENTS in missing:
        from .gradients import gradient_shares

        with _told(say, f"{item} gradients"), output_to_log(plan, item):
            folder = plan.run_folder(method.name, f"seed-{item.seed}")
            content = gradient_shares(plan.recipe(method, item.seed), folder)
            fingerprint = gradients_fingerprint(plan, method, item.seed)
            Cells(plan.folder, plan.redo).write(method.name, item.seed, GRADIENTS, fingerprint, content)
    if not plan.keep_weights and method.weights is None:
        remove_checkpoints(plan.run_folder(method.name, f"seed-{item.seed}"))


def make_evaluation_cell(
    plan: Plan, method: Method, seed: int, evaluation: Evaluation, pretrained_again: bool = False
) -> dict[str, Any]:
    """Evaluate the weights of one run and write the cell.

    Args:
        plan: The comparison.
        method: Of the run.
        seed: Of the run.
        evaluation: One of the plan's evaluations.
        pretrained_again: Whether the weights are not those of the pretraining cell; the cell notes it.

    Returns:
        The cell's content.
    """
    from .. import evaluation as tasks

    folder = plan.run_folder(method.name, f"seed-{seed}")
    notes = ["the network was pretrained again for this cell"] if pretrained_again else []
    content: dict[str, Any] = {"task": evaluation.task, "status": DONE, "reason": None}
    started = time.monotonic()
    try:
        result = getattr(tasks, evaluation.task)(
            str(folder),
            evaluation.dataset,
            test_dataset=evaluation.test_dataset,
            seed=evaluation.seed(seed),
            **evaluation.settings,
        )
    except TrainingStopped as error:
        content |= {"status": STOPPED, "reason": scrubbed(str(error), folder), "metrics": {}, "notes": notes}
        content["seconds"] = time.monotonic() - started
    else:
        paths: list[Path | str] = [
            folder,
            evaluation.dataset,
            *([evaluation.test_dataset] if evaluation.test_dataset else []),
        ]
        content |= {
            "metrics": result.metrics,
            "split": result.split,
            "fit_split": result.fit_split,
            "count": result.count,
            "seconds": round(result.seconds, 1),
            "notes": [scrubbed(note, *paths) for note in notes + result.notes],
        }
    fingerprint = evaluation_fingerprint(plan, method, seed, evaluation)
    Cells(plan.folder, plan.redo).write(method.name, seed, evaluation.key, fingerprint, content)
    return content


def say_with_time(text: str) -> None:
    """Print a line of progress with the time, without buffering."""
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


@contextlib.contextmanager
def output_to_log(plan: Plan, item: WorkItem) -> Iterator[None]:
    """Redirect what the work prints (steps, progress bars) to DIR/logs, so that the terminal stays readable."""
    path = plan.folder / LOGS / f"{item.method}-seed-{item.seed}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


@contextlib.contextmanager
def _told(say: Say, what: str) -> Iterator[list[str]]:
    """Say that a piece of work starts, and at its end the seconds it took and the texts that were put in the list.

    Raises:
        UserError: the work raised it; the message says which work.
    """
    say(f"{what} ...")
    results: list[str] = []
    started = time.monotonic()
    try:
        yield results
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    say(f"{what}: {time.monotonic() - started:.0f} s" + "".join(f", {text}" for text in results))


def _pretrain_text(cell: dict[str, Any]) -> str:
    """Summarise a pretraining cell for the line of progress."""
    if cell["status"] != DONE:
        return f"{cell['status']}: {cell['reason']}"
    knn = cell["log"].get("knn", {})
    accuracies = " ".join(f"{name} {values[-1]:.3f}" for name, values in knn.items() if name != "step")
    return f"{cell['steps']} steps" + (f", kNN {accuracies}" if accuracies else "")


def _evaluation_text(cell: dict[str, Any]) -> str:
    """Summarise an evaluation cell for the line of progress."""
    if cell["status"] != DONE:
        return f"{cell['status']}: {cell['reason']}"
    return " ".join(f"{name} {value:.3f}" for name, value in metrics_of(cell).items() if value is not None)


def _short_run_text(cell: dict[str, Any]) -> str:
    """Summarise the cell of a short run for the line of progress."""
    accuracies = " ".join(f"{name} {value:.3f}" for name, value in cell["knn"].items())
    return ("collapsed, " if cell["collapsed"] else "") + (f"kNN {accuracies}" if accuracies else cell["status"])
