"""Which metric of the looks at held-out images decides on the best checkpoint."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modeling_ladder import LadderSiameseForPreTraining

from ..errors import UserError
from ..models.all_stages import ALL_STAGES
from .monitor import HeldOutImages

PREFIX = "eval_"


def looks_at_images(values: Mapping[str, Any]) -> bool:
    """Tell whether a run looks at held-out images, which are then no part of its training.

    Args:
        values: Training arguments, by name; one that is not there has its default.
    """
    return values.get("monitor_steps") != 0 or wants_looks(values)


def wants_looks(values: Mapping[str, Any]) -> bool:
    """Tell whether training arguments ask for looks by one of transformers' own fields."""
    return bool(
        values.get("eval_strategy", "no") != IntervalStrategy.NO
        or values.get("eval_on_start")
        or values.get("load_best_model_at_end")
        or values.get("save_strategy") == SaveStrategy.BEST
    )


def check_best_metric(args: Any, model: LadderSiameseForPreTraining, held_out: HeldOutImages | None) -> None:
    """Check, before a run, that its looks measure what its arguments need.

    Args:
        args: Training arguments.
        model: The pretraining model.
        held_out: The held-out images, or None.

    Raises:
        UserError: there are no held-out images, or they are not measured by `metric_for_best_model`.
    """
    if not wants_looks(vars(args)) and args.metric_for_best_model is None:
        return
    if held_out is None:
        raise UserError(
            "eval_strategy, load_best_model_at_end, metric_for_best_model and save_strategy: best need held-out images "
            "to look at, but there are none: give an eval_dataset"
        )
    if args.save_strategy == SaveStrategy.BEST and args.metric_for_best_model is None:
        raise UserError(f"save_strategy: best needs metric_for_best_model, {_one_of(metric_names(model, held_out))}")
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix(PREFIX) not in metric_names(model, held_out):
        without = "" if held_out.labels is not None else " (knn needs labels)"
        raise UserError(
            f"metric_for_best_model must be {_one_of(metric_names(model, held_out))}{without}, got {metric!r}"
        )


def metric_names(model: LadderSiameseForPreTraining, held_out: HeldOutImages) -> list[str]:
    """Name the metrics of a look, as they are logged."""
    stages = [*model.config.stages]
    stages += [ALL_STAGES] if len(stages) > 1 else []
    levels = [f"{stage}.{kind}" for stage, kind, _ in model.config.levels]
    knn = [f"knn/{stage}" for stage in stages] if held_out.labels is not None else []
    return [*knn, *(f"{group}/{level}" for group in ("std", "rank") for level in levels)]


def _one_of(names: Collection[str]) -> str:
    return f"one of {', '.join(names)}"
