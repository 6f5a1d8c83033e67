"""Figures of a comparison, all drawn from the content of comparison.json."""

import math
from collections.abc import Iterable
from typing import Any

_ALL = "all"


def comparison_figures(summary: dict[str, Any]) -> dict[str, bytes]:
    """Draw every figure that the summary has the numbers for.

    Args:
        summary: From `summarise_comparison`.

    Returns:
        File name to PNG: "differences.png", "knn.png", "knn_time.png", "steps_to_reach.png", "loss.png",
        "gradients.png", and "stability_METHOD.png" for each method.
    """
    curves = summary["curves"]
    figures = {}
    if any(_headline_differences(summary)):
        figures["differences.png"] = _differences(summary)
    if curves["knn"]:
        figures["knn.png"] = _knn(summary, per_step=None)
        speed = {name: value for name in curves["knn"] if (value := _seconds_per_step(summary, name))}
        if len(speed) == len(curves["knn"]):
            figures["knn_time.png"] = _knn(summary, per_step=speed)
    if summary["steps_to_reach"]:
        figures["steps_to_reach.png"] = _steps_to_reach(summary)
    if curves["loss"]:
        figures["loss.png"] = _losses(summary)
    if summary["gradients"]:
        figures["gradients.png"] = _gradients(summary)
    for method, runs in summary["stability"].get("runs", {}).items():
        if runs:
            figures[f"stability_{method}.png"] = _stability(method, runs, summary["stability"])
    return figures


def method_colours(summary: dict[str, Any]) -> dict[str, str]:
    """Return a colour for each method, the same in every figure. The baseline is grey."""
    from ladder_model_cards.figures.style import LIGHT, method_looks

    looks = method_looks(summary["methods"], summary["baseline"])
    return {name: LIGHT.colour(look.key) for name, look in looks.items()}


def method_name(name: str) -> str:
    """What a figure calls a method."""
    from ladder_model_cards.figures.style import label
    from ladder_model_cards.metadata import METHOD_TITLES

    return label(METHOD_TITLES.get(name, name.replace("_", " ")))


def _headline_differences(summary: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """List (evaluation, method, difference to the baseline) of every headline metric."""
    return [
        (row["evaluation"], name, scores["difference"])
        for row in summary["rows"]
        if row["headline"]
        for name, scores in row["methods"].items()
        if scores.get("difference", {}).get("mean") is not None
    ]


def _evaluation_name(summary: dict[str, Any], evaluation: str) -> str:
    """What a figure calls an evaluation: its task above its data set, or the name that the user gave it."""
    from ladder_model_cards.figures.style import label
    from ladder_model_cards.metadata import TASK_TITLES
    from ladder_model_cards.text import shown_dataset

    row = next(row for row in summary["rows"] if row["evaluation"] == evaluation)
    if not evaluation.startswith(f"{row['task']}-") or row["task"] not in TASK_TITLES:
        return label(evaluation.replace("_", " "))
    return f"{label(TASK_TITLES[row['task']])}\n{label(shown_dataset(row['dataset']))}"


def _differences(summary: dict[str, Any]) -> bytes:
    """Draw headline differences to the baseline with their intervals, one row per evaluation."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, legend_below

    differences, colours = _headline_differences(summary), method_colours(summary)
    rows = list(dict.fromkeys(evaluation for evaluation, _, _ in differences))
    methods = [name for name in summary["methods"] if any(name == method for _, method, _ in differences)]
    figure, png, style = canvas(WIDTH, 1.1 + len(rows) * max(0.42, 0.14 * len(methods)) + 0.1 * len(methods))
    with style:
        axes = figure.add_subplot()
        axes.axvline(0, color=LIGHT.soft, linewidth=1)
        for evaluation, method, difference in differences:
            height = rows.index(evaluation) + 0.7 * ((methods.index(method) + 0.5) / len(methods) - 0.5)
            mean = 100 * difference["mean"]
            if difference["low"] is not None:
                axes.plot([100 * difference["low"], 100 * difference["high"]], [height] * 2, color=colours[method])
            axes.plot(mean, height, "o", color=colours[method], markersize=5)
        handles = [axes.plot([], [], "o-", color=colours[method])[0] for method in methods]
        axes.set_yticks(range(len(rows)), [_evaluation_name(summary, row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"points better than {method_name(summary['baseline'])} (line: 95 % interval)")
        legend_below(figure, handles, [method_name(name) for name in methods])
        return png()


def _knn(summary: dict[str, Any], per_step: dict[str, float] | None) -> bytes:
    """Draw the kNN accuracy during training, one panel per stage, over steps or (given seconds per step) time."""
    from ladder_model_cards.figures.style import WIDTH, canvas, label, legend_below
    from ladder_model_cards.text import spoken

    curves, colours = summary["curves"]["knn"], method_colours(summary)
    stages = _all_last(name for method in curves.values() for name in method)
    columns = min(2, len(stages))
    lines = math.ceil(len(stages) / columns)
    figure, png, style = canvas(WIDTH, 2.1 * lines + 0.8)
    with style:
        first = None
        for place, stage in enumerate(stages):
            axes = first = figure.add_subplot(lines, columns, place + 1, sharey=first)
            for method, by_stage in curves.items():
                if stage not in by_stage:
                    continue
                scale = per_step[method] if per_step else 1.0
                x = [scale * step for step in by_stage[stage]["step"]]
                mean = [100 * value for value in by_stage[stage]["mean"]]
                axes.plot(x, mean, color=colours[method], label=method_name(method))
                spread = [100 * (value or 0) for value in by_stage[stage]["std"]]
                low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
                axes.fill_between(x, low, high, color=colours[method], alpha=0.2, linewidth=0)
            axes.set_title(label(spoken(stage)))
            axes.locator_params(axis="x", nbins=5)
            if place >= len(stages) - columns:
                axes.set_xlabel("seconds of processor time" if per_step else "step of training")
        figure.supylabel("kNN accuracy on held-out images (%)", fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        legend_below(figure, handles, labels)
        return png()


def _steps_to_reach(summary: dict[str, Any]) -> bytes:
    """Draw bars of the steps until the baseline's final kNN is reached, as a share of its steps; dots are seeds."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, label, legend_below
    from ladder_model_cards.text import spoken

    rows, colours = summary["steps_to_reach"], method_colours(summary)
    names = _all_last(row["features"] for row in rows)
    methods = [name for name in summary["methods"] if any(row["method"] == name for row in rows)]
    width = 0.8 / len(methods)
    figure, png, style = canvas(WIDTH, 3.4)
    with style:
        axes = figure.add_subplot()
        for row in rows:
            place = names.index(row["features"]) + width * (methods.index(row["method"]) - (len(methods) - 1) / 2)
            known = [value for value in row["ratio"].values() if value is not None]
            colour = colours[row["method"]]
            if row["mean"] is not None:
                axes.bar(place, row["mean"], 0.9 * width, color=colour, alpha=0.6)
            axes.plot([place] * len(known), known, "o", color=colour)
            missed = len(row["ratio"]) - len(known)
            if missed:
                axes.text(place, 1.03, f"{missed} not", ha="center", va="bottom", fontsize=7, rotation=90)
        handles = [axes.bar([0], [0], color=colours[method], alpha=0.6) for method in methods]
        axes.axhline(1.0, color=LIGHT.soft, linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(names)), [label(spoken(name)) for name in names])
        axes.set_ylabel("share of the baseline's steps")
        if any(None in row["ratio"].values() for row in rows):
            axes.set_xlabel("“1 not”: one seed did not get there")
        axes.set_title(label(f"Steps to the last kNN accuracy of {method_name(summary['baseline'])}"), pad=22)
        legend_below(figure, handles, [method_name(name) for name in methods])
        return png()


def _losses(summary: dict[str, Any]) -> bytes:
    """Draw the loss of every level, averaged over seeds, one panel per method."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, label, legend_below, line_looks
    from ladder_model_cards.text import spoken

    curves = summary["curves"]["loss"]
    columns = min(2, len(curves))
    lines = math.ceil(len(curves) / columns)
    levels = _levels(name for method in curves.values() for name in method)
    figure, png, style = canvas(WIDTH, 2.1 * lines + 0.8 + 0.1 * len(levels))
    looks = line_looks(levels)
    with style:
        first, shown = None, dict[str, Any]()
        for place, (method, by_level) in enumerate(curves.items()):
            axes = first = figure.add_subplot(lines, columns, place + 1, sharey=first)
            for level in levels:
                if level in by_level:
                    dashes = "--" if looks[level].dashed else "-"
                    line = by_level[level]["step"], by_level[level]["mean"], dashes
                    (shown[level],) = axes.plot(*line, color=LIGHT.colour(looks[level].key))
            axes.set_title(method_name(method))
            axes.locator_params(axis="x", nbins=5)
            if place >= len(curves) - columns:
                axes.set_xlabel("step of training")
        figure.supylabel("loss of a stage", fontsize=10)
        ordered = [level for level in levels if level in shown]
        legend_below(figure, [shown[level] for level in ordered], [label(spoken(level)) for level in ordered])
        return png()


def _gradients(summary: dict[str, Any]) -> bytes:
    """Draw stacked bars of each level's share in the gradient of each stage, at the start (light) and the end."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, label, legend_below, line_looks
    from ladder_model_cards.text import spoken

    gradients = summary["gradients"]
    levels = _levels(level for method in gradients.values() for row in method["end"].values() for level in row)
    looks = line_looks(levels)
    columns = min(2, len(gradients))
    lines = math.ceil(len(gradients) / columns)
    figure, png, style = canvas(WIDTH, 2.3 * lines + 0.9 + 0.1 * len(levels))
    with style:
        for place, (method, shares) in enumerate(gradients.items()):
            axes = figure.add_subplot(lines, columns, place + 1)
            stages = list(shares["end"])
            for when, shift, alpha in (("start", -0.2, 0.45), ("end", 0.2, 1.0)):
                for index, stage in enumerate(stages):
                    bottom = 0.0
                    for level in levels:
                        share = shares[when][stage].get(level, 0.0)
                        look = {"color": LIGHT.colour(looks[level].key), "hatch": "///" if looks[level].dashed else ""}
                        axes.bar(index + shift, share, 0.36, bottom=bottom, alpha=alpha, edgecolor=LIGHT.paper, **look)
                        bottom += share
            axes.set_xticks(range(len(stages)), [label(spoken(stage)).replace(" ", "\n") for stage in stages])
            axes.set_ylim(0, 1)
            axes.grid(visible=False)
            axes.set_title(method_name(method))
        figure.supylabel("share in the gradient of a stage", fontsize=10)
        figure.axes[-1].set_xlabel("pale: start, full: end of training")
        bars = [
            figure.axes[0].bar(
                [0], [0], color=LIGHT.colour(looks[level].key), hatch="///" if looks[level].dashed else ""
            )
            for level in levels
        ]
        legend_below(figure, bars, [label(f"loss at {spoken(level)}") for level in levels])
        return png()


def _stability(method: str, runs: list[dict[str, Any]], grid: dict[str, Any]) -> bytes:
    """Draw heat maps over learning rate and batch size: kNN of the last stage and of all, least spread."""
    from ladder_model_cards.figures.style import HEAT, WIDTH, canvas, label, text_on
    from ladder_model_cards.text import spoken

    rates = sorted({run["learning_rate"] for run in runs})
    batches = sorted({run["batch_size"] for run in runs})
    stages = [name for name in next((run["knn"] for run in runs if run["knn"]), {}) if name != _ALL]
    panels = [("least spread of a level", lambda run: run["min_std"], (0.0, 1.0))]
    if stages:
        last = label(f"kNN accuracy of {spoken(stages[-1])} (%)")
        panels = [
            (last, lambda run: _percent(run["knn"].get(stages[-1])), (0.0, 100.0)),
            ("kNN accuracy of all stages (%)", lambda run: _percent(run["knn"].get(_ALL)), (0.0, 100.0)),
            *panels,
        ]
    figure, png, style = canvas(max(WIDTH, 0.7 * len(rates)), 0.8 + (0.75 + 0.42 * len(batches)) * len(panels))
    with style:
        for place, (title, value_of, limits) in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            values = [[math.nan] * len(rates) for _ in batches]
            for run in runs:
                column, row = rates.index(run["learning_rate"]), batches.index(run["batch_size"])
                value = value_of(run)
                values[row][column] = math.nan if value is None else value
                text = "-" if value is None else f"{value:.2f}" if limits[1] == 1 else f"{value:.0f}"
                text += " ×" if run["collapsed"] else ""
                colour = text_on(1.0 if value is None else value / limits[1])
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
            axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap=HEAT, origin="lower", aspect="auto")
            axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
            axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
            axes.grid(visible=False)
            axes.set_title(title)
        figure.axes[-1].set_xlabel("learning rate")
        figure.supylabel("batch size", fontsize=10)
        title = f"{method_name(method)}, {grid['steps']} steps, seed {grid['seed']} (×: collapsed)"
        figure.suptitle(title, fontsize=11)
        return png()


def _seconds_per_step(summary: dict[str, Any], method: str) -> float | None:
    """Return the average processor seconds of a step, or None if they were not recorded."""
    runs = [run for run in summary["pretraining"][method].values() if run["status"] == "finished"]
    known = [run["cpu_seconds"] / run["steps"] for run in runs if run.get("cpu_seconds") and run["steps"]]
    return sum(known) / len(known) if known and len(known) == len(runs) else None


def _all_last(names: Iterable[str]) -> list[str]:
    """List each name once, with "all" (all stages together) last."""
    return sorted(dict.fromkeys(names), key=lambda name: name == _ALL)


def _levels(names: Iterable[str]) -> list[str]:
    """List the levels in the order of their stages, without the total."""
    return sorted({name for name in names if name not in ("total", "step")})


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
