"""The grid of short runs: every learning rate with every batch size.

They say where training collapses, and how well it works elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.options import TrainingOptions
from ..config.recipe import ResolvedRecipe
from .options import CompareOptions

BATCH_SIZES = (16, 64, 256)
FACTORS = (0.25, 1.0, 4.0)
"""Default learning rates, as multiples of the recipe's peak."""
LOOKS = 4
"""How often a short run is monitored."""


@dataclass(frozen=True)
class Point:
    """One short run: peak learning rate and images per optimizer step."""

    learning_rate: float
    batch_size: int

    @property
    def key(self) -> str:
        """Name of the run's cell and of its folder."""
        return f"stability-lr{self.learning_rate:g}-batch{self.batch_size}"


@dataclass(frozen=True)
class Stability:
    """The grid of short runs of one seed.

    Attributes:
        seed: Seed of every run.
        steps: Optimizer steps of every run.
        learning_rates: Peak learning rates, rising.
        batch_sizes: Images per optimizer step, rising.
        warmup_steps: Steps of linear warm-up of every run; below 1: a share of the run.
    """

    seed: int
    steps: int
    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    warmup_steps: float

    @property
    def points(self) -> list[Point]:
        """List all runs of a method."""
        return [Point(rate, batch) for rate in self.learning_rates for batch in self.batch_sizes]

    def changes(self, point: Point) -> dict[str, Any]:
        """Return the fields of the recipe that a short run changes. A collapse does not stop a short run."""
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
    """Plan the grid that a command asks for.

    Raises:
        UserError: a number is out of range.
    """
    from ..pretraining.build import training_arguments

    arguments = training_arguments(recipe, Path(str(recipe.run.output)))
    rates = options.stability_learning_rates or [arguments.peak_learning_rate * factor for factor in FACTORS]
    batches = options.stability_batch_sizes or BATCH_SIZES
    # Warm up for the same share of the run as in the recipe.
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


def threshold(recipe: ResolvedRecipe) -> float:
    """Return the spread of projections below which a level counts as collapsed."""
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
