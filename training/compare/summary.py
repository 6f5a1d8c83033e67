"""From cells to the rows of the table: each method's mean and deviation, and its paired difference to the baseline."""

from dataclasses import asdict
from typing import Any

from .cells import DONE, headline_metric, metrics_of
from .fingerprints import data_name
from .given_weights import origins
from .plan import Plan
from .results import read_evaluation, read_gradients, read_point, read_pretrain
from .statistics import paired_difference, steps_to_reach, summarise


def summarise_comparison(plan: Plan) -> dict[str, Any]:
    """Summarise all cells, as comparison.json holds them. Missing cells are left out.

    Returns:
        "rows", "pretraining", "steps_to_reach", "curves", "gradients", "stability", and what was compared.
    """
    pretrain = {
        (method.name, seed): cell
        for method in plan.methods
        for seed in plan.seeds
        if (cell := read_pretrain(plan, method, seed)) is not None
    }
    return {
        "recipe": plan.name,
        "dataset": data_name(plan.base.values.get("dataset")),
        "methods": [method.name for method in plan.methods],
        "baseline": plan.baseline.name,
        "seeds": plan.seeds,
        "confidence": 0.95,
        "notes": [*plan.notes, *origins(pretrain)],
        "rows": evaluation_rows(plan, pretrain),
        "pretraining": {
            method.name: {
                str(seed): {name: cell.get(name) for name in ("status", "reason", "steps", "seconds", "cpu_seconds")}
                for seed in plan.seeds
                if (cell := pretrain.get((method.name, seed)))
            }
            for method in plan.methods
        },
        "steps_to_reach": reach_rows(plan, pretrain),
        "curves": {
            group: {
                method.name: curves
                for method in plan.methods
                if (curves := mean_curves([pretrain.get((method.name, seed)) for seed in plan.seeds], group))
            }
            for group in ("knn", "loss", "std")
        },
        "gradients": _gradients(plan),
        "stability": _stability(plan),
    }


def evaluation_rows(plan: Plan, pretrain: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Make one row per evaluation and metric: task, data set, metric, and each method's values, mean and difference.

    The value of a seed is the mean over the evaluation's repeats; it is missing until all repeats are done. A method's
    "collapsed" lists the seeds that have no value because the run or its evaluation was stopped.

    Args:
        plan: The comparison.
        pretrain: (method, seed) -> cell of the pretraining.
    """
    rows = []
    for evaluation in plan.evaluations:
        if evaluation.repeat:
            continue
        repeats = [other for other in plan.evaluations if other.row == evaluation.row]
        scores: dict[str, dict[int, dict[str, float | None]]] = {}
        failed: dict[str, list[int]] = {}
        for method in plan.methods:
            scores[method.name], failed[method.name] = {}, []
            for seed in plan.seeds:
                cells = [cell for other in repeats if (cell := read_evaluation(plan, method, seed, other)) is not None]
                if len(cells) == len(repeats) and all(cell["status"] == DONE for cell in cells):
                    scores[method.name][seed] = _mean_metrics([metrics_of(cell) for cell in cells])
                elif any(cell["status"] != DONE for cell in cells) or (
                    pretrain.get((method.name, seed), {}).get("status", DONE) != DONE
                ):
                    failed[method.name].append(seed)
        metrics = list(dict.fromkeys(name for seeds in scores.values() for row in seeds.values() for name in row))
        for metric in metrics:
            values = {
                name: {seed: value for seed, row in seeds.items() if (value := row.get(metric)) is not None}
                for name, seeds in scores.items()
            }
            rows.append(
                {
                    "evaluation": evaluation.row,
                    "task": evaluation.task,
                    "dataset": data_name(evaluation.dataset),
                    **({"repeats": len(repeats)} if len(repeats) > 1 else {}),
                    "metric": metric,
                    "headline": metric == headline_metric(metrics),
                    "methods": {
                        method.name: _method_scores(plan, values, method.name, failed[method.name])
                        for method in plan.methods
                    },
                }
            )
    return rows


def _mean_metrics(repeats: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Average each metric over repeats; None if one of them has no value."""
    means: dict[str, float | None] = {}
    for name in repeats[0]:
        values = [value for row in repeats if (value := row[name]) is not None]
        means[name] = sum(values) / len(values) if len(values) == len(repeats) else None
    return means


def reach_rows(plan: Plan, pretrain: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Compute when a method reaches the baseline's final kNN accuracy, as a share of the baseline's steps.

    Args:
        plan: The comparison.
        pretrain: (method, seed) -> cell of the pretraining.

    Returns:
        One row per stage and method: "ratio" (seed -> share, None if never reached), "mean" (None unless every seed
        reaches it), "reached" (number of seeds that do), "mean_curve" (the share at which the mean over seeds reaches
        the end of the baseline's mean, or None), "wall_clock" (as "ratio", in seconds instead of steps). The
        baseline's own row says when it first had its final accuracy.
    """
    rows = []
    reference = {
        seed: cell
        for seed in plan.seeds
        if (cell := pretrain.get((plan.baseline.name, seed))) and cell["status"] == DONE and cell["log"].get("knn")
    }
    names = list(dict.fromkeys(name for cell in reference.values() for name in cell["log"]["knn"] if name != "step"))
    means = {
        method.name: mean_curves([pretrain.get((method.name, seed)) for seed in reference], "knn")
        for method in plan.methods
    }
    for name in names:
        for method in plan.methods:
            ratios: dict[int, float | None] = {}
            clock: dict[int, float | None] = {}
            for seed, baseline in reference.items():
                cell = pretrain.get((method.name, seed))
                if cell is None or not cell["log"].get("knn", {}).get(name):
                    continue
                knn = cell["log"]["knn"]
                step = steps_to_reach(knn["step"], knn[name], baseline["log"]["knn"][name][-1])
                ratios[seed] = None if step is None else step / baseline["steps"]
                seconds = None if step is None else step * cell["seconds"] / max(cell["steps"], 1)
                clock[seed] = None if seconds is None else seconds / max(baseline["seconds"], 1e-9)
            if ratios:
                rows.append(
                    {
                        "features": name,
                        "method": method.name,
                        "ratio": {str(seed): value for seed, value in ratios.items()},
                        "mean": _mean_of_all(ratios),
                        "mean_curve": _mean_curve_ratio(means[method.name].get(name), means[plan.baseline.name][name]),
                        "reached": sum(value is not None for value in ratios.values()),
                        "wall_clock": {str(seed): value for seed, value in clock.items()},
                        "wall_clock_mean": _mean_of_all(clock),
                    }
                )
    return rows


def _mean_curve_ratio(curve: dict[str, list[Any]] | None, baseline: dict[str, list[Any]]) -> float | None:
    """Return the share of the baseline's steps at which a mean curve reaches the end of the baseline's."""
    if not curve or not curve["mean"] or not baseline["mean"]:
        return None
    step = steps_to_reach(curve["step"], curve["mean"], baseline["mean"][-1])
    return None if step is None else step / baseline["step"][-1]


def mean_curves(cells: list[dict[str, Any] | None], group: str) -> dict[str, dict[str, list[float | None]]]:
    """Average a method's curves over seeds, at the steps that all its finished runs have.

    Args:
        cells: Its pretraining cells, one per seed. Missing and stopped runs are skipped.
        group: "knn", "loss" or "std".

    Returns:
        Stage or level -> {"step", "mean", "std"}; std holds None if there is one seed.
    """
    logs = [cell["log"][group] for cell in cells if cell and cell["status"] == DONE and cell["log"].get(group)]
    if not logs:
        return {}
    steps = [step for step in logs[0]["step"] if all(step in log["step"] for log in logs)]
    curves = {}
    for name in logs[0]:
        if name == "step" or any(name not in log for log in logs):
            continue
        at = [dict(zip(log["step"], log[name], strict=True)) for log in logs]
        known = [step for step in steps if all(values[step] is not None for values in at)]
        points = [summarise([values[step] for values in at]) for step in known]
        curves[name] = {"step": known, "mean": [p.mean for p in points], "std": [p.std for p in points]}
    return curves


def _method_scores(plan: Plan, values: dict[str, dict[int, float]], name: str, failed: list[int]) -> dict[str, Any]:
    """Summarise one metric of a method over seeds, with its difference to the baseline."""
    summary = summarise([values[name][seed] for seed in plan.seeds if seed in values[name]])
    scores: dict[str, Any] = {
        "values": {str(seed): value for seed, value in values[name].items()},
        **asdict(summary),
        "collapsed": failed,
    }
    if name != plan.baseline.name:
        difference = asdict(paired_difference(values[name], values[plan.baseline.name]))
        scores["difference"] = {key: value for key, value in difference.items() if key != "values"}
    return scores


def _gradients(plan: Plan) -> dict[str, Any]:
    """Average each level's share in each stage's gradient over seeds, for every method, at start and end."""
    gradients: dict[str, Any] = {}
    for method in plan.methods:
        seeds = plan.seeds if method.trained_here and plan.gradients else []
        cells = [cell for seed in seeds if (cell := read_gradients(plan, method, seed))]
        if cells:
            gradients[method.name] = {
                when: _mean_shares([cell[when]["share"] for cell in cells]) for when in ("start", "end")
            }
            gradients[method.name]["seeds"] = len(cells)
    return gradients


def _mean_shares(shares: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Average stage -> level -> share over seeds."""
    return {
        stage: {level: sum(share[stage][level] for share in shares) / len(shares) for level in row}
        for stage, row in shares[0].items()
    }


def _stability(plan: Plan) -> dict[str, Any]:
    """List the short runs of every method, without their logs."""
    if plan.stability is None:
        return {}
    names = ("learning_rate", "batch_size", "status", "collapsed", "min_std", "knn", "std")
    runs = {
        method.name: [
            {name: cell[name] for name in names}
            for point in plan.stability.points
            if (cell := read_point(plan, method, point))
        ]
        for method in plan.methods
        if method.trained_here
    }
    return {"seed": plan.stability.seed, "steps": plan.stability.steps, "runs": runs}


def _mean_of_all(values: dict[int, float | None]) -> float | None:
    """Average the values of all seeds; None if one of them is missing."""
    known = [value for value in values.values() if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
