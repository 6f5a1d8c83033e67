"""Short runs over learning rates and batch sizes: where training collapses, and how well it works elsewhere."""

import shutil
from typing import TYPE_CHECKING, Any

from ..config.recipe import ResolvedRecipe
from .grid import Point

if TYPE_CHECKING:
    from .plan import Method, Plan


def run_point(plan: "Plan", method: "Method", point: Point) -> dict[str, Any]:
    """Make one short run, write its cell, and delete the rest of the run.

    Returns:
        The cell's content.
    """
    from .cells import Cells
    from .fingerprints import run_fingerprint
    from .training_cell import pretrain_quietly, thinned_log

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
    Cells(plan.folder, plan.redo).write(method.name, grid.seed, point.key, run_fingerprint(recipe), content)
    shutil.rmtree(folder, ignore_errors=True)
    return content


def threshold(recipe: ResolvedRecipe) -> float:
    """Return the spread of projections below which a level counts as collapsed."""
    from ..config.options import TrainingOptions

    return float(recipe.values.get("collapse_threshold") or TrainingOptions().collapse_threshold)


def verdict(log: list[dict[str, Any]], status: str, limit: float) -> dict[str, Any]:
    """Judge a short run by its log.

    Args:
        log: transformers' `log_history`.
        status: "finished", or another word if the run was stopped.
        limit: Spread of projections below which a level has collapsed.

    Returns:
        "knn": stage (or "all") -> accuracy at the end; "std": level -> spread at the end; "min_std": the smallest
        spread of any level at any monitored step but the first; "collapsed": whether a level ended below the limit or
        the run was stopped.
    """
    looks = [entry for entry in log if any(str(key).startswith("std/") for key in entry) and entry.get("step", 0) > 0]
    last = looks[-1] if looks else {}
    std = {key.removeprefix("std/"): value for key, value in last.items() if key.startswith("std/")}
    all_std = [value for entry in looks for key, value in entry.items() if key.startswith("std/")]
    return {
        "knn": {key.removeprefix("knn/"): value for key, value in last.items() if key.startswith("knn/")},
        "std": std,
        "min_std": min(all_std, default=None),
        "collapsed": status != "finished" or any(not value >= limit for value in std.values()),
    }
