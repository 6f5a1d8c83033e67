"""Short runs over learning rates and batch sizes: where does training collapse, and how good is it elsewhere?"""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..recipe import ResolvedRecipe
from .options import CompareOptions

if TYPE_CHECKING:
    from .plan import Method, Plan

BATCH_SIZES = (16, 64, 256)
FACTORS = (0.25, 1.0, 4.0)
LOOKS = 4


@dataclass(frozen=True)
class Point:
    """One short run: peak learning rate and images per optimizer step."""

    learning_rate: float
    batch_size: int

    @property
    def key(self) -> str:
        """Name of its cell and of its folder."""
        return f"stability-lr{self.learning_rate:g}-batch{self.batch_size}"


@dataclass(frozen=True)
class Stability:
    """The grid of short runs of one seed.

    Attributes:
        seed: Of every run.
        steps: Of every run.
        learning_rates: Rising.
        batch_sizes: Rising.
        warmup_steps: Of every run.
    """

    seed: int
    steps: int
    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    warmup_steps: float

    @property
    def points(self) -> list[Point]:
        """All runs of a method."""
        return [Point(rate, batch) for rate in self.learning_rates for batch in self.batch_sizes]

    def changes(self, point: Point) -> dict[str, Any]:
        """Fields of the recipe that a short run changes. It goes on after a collapse, so that its figures are known."""
        return {
            "learning_rate": point.learning_rate,
            "base_learning_rate": None,
            "per_device_train_batch_size": point.batch_size,
            "gradient_accumulation_steps": 1,
            "max_steps": self.steps,
            "warmup_epochs": None,
            "warmup_steps": self.warmup_steps,
            "monitor_steps": max(1, self.steps // LOOKS),
            "stop_on_collapse": False,
            "save_strategy": "no",
        }


def planned_stability(options: CompareOptions, recipe: ResolvedRecipe) -> Stability:
    """The grid that a command asks for.

    Raises:
        UserError: a number is out of range.
    """
    from ..build import training_arguments

    arguments = training_arguments(recipe, recipe.run.output)
    rates = options.stability_learning_rates or [arguments.peak_learning_rate * factor for factor in FACTORS]
    batches = options.stability_batch_sizes or BATCH_SIZES
    for name, values in (("learning_rates", rates), ("batch_sizes", batches), ("steps", [options.stability_steps])):
        if any(value <= 0 for value in values):
            raise UserError(f"stability_{name} must be greater than 0, got {min(values)}")
    # The same share of the run as in the recipe.
    warmup = arguments.warmup_steps
    if warmup >= 1 and arguments.max_steps > 0:
        warmup = round(warmup * options.stability_steps / arguments.max_steps)
    return Stability(
        seed=(options.seeds or [0])[0],
        steps=options.stability_steps,
        learning_rates=tuple(sorted({float(f"{rate:.6g}") for rate in rates})),
        batch_sizes=tuple(sorted(set(batches))),
        warmup_steps=min(warmup, options.stability_steps),
    )


def run_point(plan: "Plan", method: "Method", point: Point) -> dict[str, Any]:
    """Make one short run and its cell; nothing else of the run stays.

    Returns:
        The cell's content.
    """
    from .cells import Cells, run_fingerprint
    from .training_cell import pretrain_quietly, thinned_log

    grid = plan.stability
    recipe = plan.recipe(method, grid.seed, point.key, **grid.changes(point))
    folder = plan.run_folder(method.name, point.key)
    # A run that was cut off has no checkpoint to go on from.
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
    """Spread of projections below which a level counts as collapsed."""
    from ..options import TrainingOptions

    return float(recipe.values.get("collapse_threshold") or TrainingOptions().collapse_threshold)


def verdict(log: list[dict[str, Any]], status: str, limit: float) -> dict[str, Any]:
    """What became of a short run, from its log.

    Args:
        log: transformers' `log_history`.
        status: "finished", or the run was stopped.
        limit: Spread below which a level has collapsed.

    Returns:
        "knn": stage (and "all") to accuracy at the end; "std": level to its spread at the end; "min_std": the least
        of any level at any look after training began; "collapsed": a level ended below the limit, or the run was
        stopped.
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
