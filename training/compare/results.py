"""The cells of a plan, read back."""

import hashlib
import json
from typing import Any

from .cells import GRADIENTS, PRETRAIN, Cells
from .evaluations import Evaluation
from .fingerprints import run_defaults, run_fingerprint
from .grid import Point
from .plan import Method, Plan


def read_pretrain(plan: Plan, method: Method, seed: int) -> dict[str, Any] | None:
    """The cell of a pretraining, or None."""
    fingerprint = plan.fingerprint(method, seed)
    return Cells(plan.folder, plan.redo).read(method.name, seed, PRETRAIN, fingerprint, run_defaults())


def evaluation_fingerprint(plan: Plan, method: Method, seed: int, evaluation: Evaluation) -> dict[str, Any]:
    """All that decides an evaluation's figures, with the weights as a short hash of what decides them."""
    return {**evaluation.fingerprint(), "pretraining": _weights(plan, method, seed)}


def read_evaluation(plan: Plan, method: Method, seed: int, evaluation: Evaluation) -> dict[str, Any] | None:
    """The cell of an evaluation, or None."""
    fingerprint = evaluation_fingerprint(plan, method, seed, evaluation)
    return Cells(plan.folder, plan.redo).read(method.name, seed, evaluation.key, fingerprint, evaluation.defaults())


def gradients_fingerprint(plan: Plan, method: Method, seed: int) -> dict[str, Any]:
    """All that decides the gradient shares."""
    from .gradients import BATCHES, IMAGES

    return {"batches": BATCHES, "images": IMAGES, "pretraining": _weights(plan, method, seed)}


def read_gradients(plan: Plan, method: Method, seed: int) -> dict[str, Any] | None:
    """The cell of the gradient shares, or None."""
    fingerprint = gradients_fingerprint(plan, method, seed)
    return Cells(plan.folder, plan.redo).read(method.name, seed, GRADIENTS, fingerprint)


def read_point(plan: Plan, method: Method, point: Point) -> dict[str, Any] | None:
    """The cell of a short run, or None."""
    grid = plan.stability
    recipe = plan.recipe(method, grid.seed, point.key, **grid.changes(point))
    return Cells(plan.folder, plan.redo).read(
        method.name, grid.seed, point.key, run_fingerprint(recipe), run_defaults()
    )


def _weights(plan: Plan, method: Method, seed: int) -> str:
    """A short hash of what decides a run's weights, by its cell where that is there."""
    cell = read_pretrain(plan, method, seed)
    fields = cell["fingerprint"] if cell else plan.fingerprint(method, seed)
    return hashlib.sha256(json.dumps(_as_floats(fields), sort_keys=True).encode()).hexdigest()[:16]


def _as_floats(value: Any) -> Any:
    """A weight written 1 is the weight 1.0."""
    if isinstance(value, dict):
        return {name: _as_floats(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_as_floats(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
