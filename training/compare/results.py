"""Reading the cells of a plan."""

import hashlib
import json
from typing import Any

from .cells import GRADIENTS, PRETRAIN, Cells
from .evaluations import Evaluation
from .fingerprints import run_defaults, run_fingerprint
from .grid import Point
from .plan import Method, Plan


def read_pretrain(plan: Plan, method: Method, seed: int) -> dict[str, Any] | None:
    """Read the cell of a pretraining, or return None if there is none yet."""
    fingerprint = plan.fingerprint(method, seed)
    return Cells(plan.folder, plan.redo).read(method.name, seed, PRETRAIN, fingerprint, run_defaults())


def evaluation_fingerprint(plan: Plan, method: Method, seed: int, evaluation: Evaluation) -> dict[str, Any]:
    """Return everything that decides an evaluation's result; a short hash stands for the weights."""
    found = plan.contents.of_evaluation(evaluation.dataset, evaluation.test_dataset)
    return {**evaluation.fingerprint(), **found, "pretraining": _weights(plan, method, seed)}


def read_evaluation(plan: Plan, method: Method, seed: int, evaluation: Evaluation) -> dict[str, Any] | None:
    """Read the cell of an evaluation, or return None if there is none yet."""
    fingerprint = evaluation_fingerprint(plan, method, seed, evaluation)
    return Cells(plan.folder, plan.redo).read(method.name, seed, evaluation.key, fingerprint, evaluation.defaults())


def gradients_fingerprint(plan: Plan, method: Method, seed: int) -> dict[str, Any]:
    """Return everything that decides the gradient shares."""
    from .gradients import BATCHES, IMAGES

    return {"batches": BATCHES, "images": IMAGES, "pretraining": _weights(plan, method, seed)}


def read_gradients(plan: Plan, method: Method, seed: int) -> dict[str, Any] | None:
    """Read the cell of the gradient shares, or return None if there is none yet."""
    fingerprint = gradients_fingerprint(plan, method, seed)
    return Cells(plan.folder, plan.redo).read(method.name, seed, GRADIENTS, fingerprint)


def read_point(plan: Plan, method: Method, point: Point) -> dict[str, Any] | None:
    """Read the cell of a short run, or return None if there is none yet."""
    grid = plan.grid
    recipe = plan.recipe(method, grid.seed, point.key, **grid.changes(point))
    fingerprint = run_fingerprint(recipe, plan.contents)
    return Cells(plan.folder, plan.redo).read(method.name, grid.seed, point.key, fingerprint, run_defaults())


def _weights(plan: Plan, method: Method, seed: int) -> str:
    """Hash the fingerprint of a run's weights, as saved in its cell if there is one."""
    cell = read_pretrain(plan, method, seed)
    fields = cell["fingerprint"] if cell else plan.fingerprint(method, seed)
    return hashlib.sha256(json.dumps(_as_floats(fields), sort_keys=True).encode()).hexdigest()[:16]


def _as_floats(value: Any) -> Any:
    """Convert whole numbers to floats, so that a level weight of 1 and one of 1.0 have the same hash."""
    if isinstance(value, dict):
        return {name: _as_floats(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_as_floats(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
