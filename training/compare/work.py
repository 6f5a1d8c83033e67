"""The work of one method and one seed: pretraining, evaluations, gradient shares; what is done is not redone."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import TrainingStopped
from .cells import DONE, GRADIENTS, PRETRAIN, STOPPED, Cells, scrubbed
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
from .short_runs import run_point
from .training_cell import ensure_weights, has_weights, make_training_cell, remove_checkpoints

LOGS = "logs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Unit:
    """What one process does in one go.

    Attributes:
        method: Name of a method.
        seed: Its seed.
        point: A short run of the stability grid; None for the whole of the method's work at that seed.
    """

    method: str
    seed: int
    point: Point | None = None

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}" + (f" {self.point.key}" if self.point else "")


def units_of(plan: Plan) -> list[Unit]:
    """All work in its order: seed by seed, so that differences are paired early; short runs last."""
    units = [Unit(method.name, seed) for seed in plan.seeds for method in plan.methods]
    if plan.stability:
        trained = [method for method in plan.methods if method.trained]
        units += [
            Unit(method.name, plan.stability.seed, point) for point in plan.stability.points for method in trained
        ]
    return units


def missing_work(plan: Plan, unit: Unit) -> list[str]:
    """Names of a unit's cells that are not there.

    Raises:
        UserError: a cell was made by other settings.
    """
    method = plan.method(unit.method)
    if unit.point:
        return [] if read_point(plan, method, unit.point) else [unit.point.key]
    pretrain = read_pretrain(plan, method, unit.seed)
    missing = [] if pretrain else [PRETRAIN]
    evaluations = [item.key for item in plan.evaluations if not read_evaluation(plan, method, unit.seed, item)]
    if pretrain and pretrain["status"] != DONE:
        return []
    missing += evaluations
    if plan.gradients and method.trained and not read_gradients(plan, method, unit.seed):
        # Pretraining again for the gradients alone is not worth it.
        missing += [GRADIENTS] if missing or has_weights(plan, method, unit.seed) else []
    return missing


def run_unit(plan: Plan, unit: Unit, say: Say | None = None) -> None:
    """Do what is missing of a unit, writing each cell as soon as it is done.

    Args:
        plan: The comparison.
        unit: Of `units_of(plan)`.
        say: Takes a line of progress; default: prints it with the time.

    Raises:
        UserError: the data or the recipe cannot be used.
    """
    say = say or say_with_time
    missing, method = missing_work(plan, unit), plan.method(unit.method)
    if not missing:
        return
    if unit.point:
        with _told(say, f"{unit}") as told, output_to_log(plan, unit):
            content = run_point(plan, method, unit.point)
            told.append(_short_run_text(content))
        return
    pretrained_again = False
    if PRETRAIN in missing:
        with _told(say, f"{unit} pretraining") as told, output_to_log(plan, unit):
            pretrain = make_training_cell(plan, method, unit.seed)
            told.append(_pretrain_text(pretrain))
        if pretrain["status"] != DONE:
            return
    elif missing:
        try:
            gone = method.trained and not has_weights(plan, method, unit.seed)
            told = _told(say, f"{unit} pretraining again, its weights are gone") if gone else contextlib.nullcontext()
            with told, output_to_log(plan, unit):
                pretrained_again = ensure_weights(plan, method, unit.seed)
        except TrainingStopped as error:
            say(f"{unit}: this time pretraining stopped ({error}); its missing evaluations stay missing")
            return
    for evaluation in plan.evaluations:
        if evaluation.key in missing:
            with _told(say, f"{unit} {evaluation.key}") as told, output_to_log(plan, unit):
                content = make_evaluation_cell(plan, method, unit.seed, evaluation, pretrained_again)
                told.append(_evaluation_text(content))
    if GRADIENTS in missing:
        from .gradients import gradient_shares

        with _told(say, f"{unit} gradients"), output_to_log(plan, unit):
            folder = plan.run_folder(method.name, f"seed-{unit.seed}")
            content = gradient_shares(plan.recipe(method, unit.seed), folder)
            fingerprint = gradients_fingerprint(plan, method, unit.seed)
            Cells(plan.folder, plan.redo).write(method.name, unit.seed, GRADIENTS, fingerprint, content)
    if not plan.keep_weights:
        remove_checkpoints(plan.run_folder(method.name, f"seed-{unit.seed}"))


def make_evaluation_cell(
    plan: Plan, method: Method, seed: int, evaluation: Evaluation, pretrained_again: bool = False
) -> dict[str, Any]:
    """Evaluate the weights of one run and write the cell.

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
        paths = [folder, evaluation.dataset, *([evaluation.test_dataset] if evaluation.test_dataset else [])]
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
    """Print a line of progress at once."""
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


@contextlib.contextmanager
def output_to_log(plan: Plan, unit: Unit) -> Iterator[None]:
    """Send what the work prints (steps, progress bars) to DIR/logs: the comparison's own lines stay readable."""
    path = plan.folder / LOGS / f"{unit.method}-seed-{unit.seed}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


@contextlib.contextmanager
def _told(say: Say, what: str) -> Iterator[list[str]]:
    """Say that a piece of work starts, and when it is done its seconds and what was put in the list."""
    say(f"{what} ...")
    started, results = time.monotonic(), []
    yield results
    say(f"{what}: {time.monotonic() - started:.0f} s" + "".join(f", {text}" for text in results))


def _pretrain_text(cell: dict[str, Any]) -> str:
    if cell["status"] != DONE:
        return f"{cell['status']}: {cell['reason']}"
    knn = cell["log"].get("knn", {})
    figures = " ".join(f"{name} {values[-1]:.3f}" for name, values in knn.items() if name != "step")
    return f"{cell['steps']} steps" + (f", kNN {figures}" if figures else "")


def _evaluation_text(cell: dict[str, Any]) -> str:
    from .metrics import figures_of

    if cell["status"] != DONE:
        return f"{cell['status']}: {cell['reason']}"
    return " ".join(f"{name} {value:.3f}" for name, value in figures_of(cell).items() if value is not None)


def _short_run_text(cell: dict[str, Any]) -> str:
    figures = " ".join(f"{name} {value:.3f}" for name, value in cell["knn"].items())
    return ("collapsed, " if cell["collapsed"] else "") + (f"kNN {figures}" if figures else cell["status"])
