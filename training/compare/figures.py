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


def method_colours(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a colour for each method, the same in every figure. The baseline is grey."""
    import matplotlib

    palette = matplotlib.color_sequences["tab10"]
    others = [name for name in summary["methods"] if name != summary["baseline"]]
    return {summary["baseline"]: "0.35", **{name: palette[i % len(palette)] for i, name in enumerate(others)}}


def _headline_differences(summary: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """List (evaluation, method, difference to the baseline) of every headline metric."""
    return [
        (row["evaluation"], name, scores["difference"])
        for row in summary["rows"]
        if row["headline"]
        for name, scores in row["methods"].items()
        if scores.get("difference", {}).get("mean") is not None
    ]


def _differences(summary: dict[str, Any]) -> bytes:
    """Draw headline differences to the baseline with their intervals, one row per evaluation."""
    from ladder_model_cards.figures import canvas, label

    differences, colours = _headline_differences(summary), method_colours(summary)
    rows = list(dict.fromkeys(evaluation for evaluation, _, _ in differences))
    methods = [name for name in summary["methods"] if any(name == method for _, method, _ in differences)]
    figure, png, style = canvas(6.5, 1.2 + 0.25 * len(rows) * max(1, len(methods)))
    with style:
        axes = figure.add_subplot()
        axes.axvline(0, color="0.35", linewidth=1)
        for evaluation, method, difference in differences:
            height = rows.index(evaluation) + 0.7 * ((methods.index(method) + 0.5) / len(methods) - 0.5)
            mean = 100 * difference["mean"]
            if difference["low"] is not None:
                axes.plot([100 * difference["low"], 100 * difference["high"]], [height] * 2, color=colours[method])
            axes.plot(mean, height, "o", color=colours[method], markersize=5)
        for method in methods:
            axes.plot([], [], "o-", color=colours[method], label=label(method))
        axes.set_yticks(range(len(rows)), [label(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(label(f"difference to {summary['baseline']} in points, 95 % interval over seeds"))
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return png()


def _knn(summary: dict[str, Any], per_step: dict[str, float] | None) -> bytes:
    """Draw the kNN accuracy during training, one panel per stage, over steps or (given seconds per step) time."""
    from ladder_model_cards.figures import canvas, label

    curves, colours = summary["curves"]["knn"], method_colours(summary)
    stages = _all_last(name for method in curves.values() for name in method)
    columns = min(3, len(stages))
    lines = math.ceil(len(stages) / columns)
    figure, png, style = canvas(3.2 * columns + 1.2, 2.6 * lines)
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
                axes.plot(x, mean, color=colours[method], label=label(method), linewidth=1.3)
                spread = [100 * (value or 0) for value in by_stage[stage]["std"]]
                low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
                axes.fill_between(x, low, high, color=colours[method], alpha=0.2, linewidth=0)
            axes.set_title(label("all stages" if stage == _ALL else stage), fontsize=10)
            if place >= len(stages) - columns:
                axes.set_xlabel("processor seconds" if per_step else "optimizer step")
            if place % columns == 0:
                axes.set_ylabel("kNN accuracy (%)")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, fontsize=8, loc="outside right upper")
        return png()


def _steps_to_reach(summary: dict[str, Any]) -> bytes:
    """Draw bars of the steps until the baseline's final kNN is reached, as a share of its steps; dots are seeds."""
    from ladder_model_cards.figures import canvas, label

    rows, colours = summary["steps_to_reach"], method_colours(summary)
    names = _all_last(row["features"] for row in rows)
    methods = [name for name in summary["methods"] if any(row["method"] == name for row in rows)]
    width = 0.8 / len(methods)
    figure, png, style = canvas(1.5 + 1.1 * len(names) + 1.2, 3.0)
    with style:
        axes = figure.add_subplot()
        for row in rows:
            place = names.index(row["features"]) + width * (methods.index(row["method"]) - (len(methods) - 1) / 2)
            known = [value for value in row["ratio"].values() if value is not None]
            colour = colours[row["method"]]
            if row["mean"] is not None:
                axes.bar(place, row["mean"], 0.9 * width, color=colour, alpha=0.6)
            axes.plot([place] * len(known), known, "o", color=colour, markersize=4)
            missed = len(row["ratio"]) - len(known)
            if missed:
                axes.text(place, 1.02, f"{missed} not", ha="center", va="bottom", fontsize=7, color=colour)
        for method in methods:
            axes.bar([0], [0], color=colours[method], alpha=0.6, label=label(method))
        axes.axhline(1.0, color="0.35", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(names)), [label(name) for name in names])
        axes.set_ylabel("share of the baseline's steps")
        axes.set_title(label(f"steps to the final kNN accuracy of {summary['baseline']}"), fontsize=10)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return png()


def _losses(summary: dict[str, Any]) -> bytes:
    """Draw the loss of every level, averaged over seeds, one panel per method."""
    from ladder_model_cards.figures import canvas, label

    curves = summary["curves"]["loss"]
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure, png, style = canvas(3.4 * columns + 1.4, 2.6 * lines)
    levels = _levels(name for method in curves.values() for name in method)
    colours = _level_colours(levels)
    with style:
        first = None
        for place, (method, by_level) in enumerate(curves.items()):
            axes = first = figure.add_subplot(lines, columns, place + 1, sharey=first)
            for level in levels:
                if level in by_level:
                    axes.plot(by_level[level]["step"], by_level[level]["mean"], color=colours[level], linewidth=1.3)
            axes.set_title(label(method), fontsize=10)
            axes.set_xlabel("optimizer step")
        figure.axes[0].set_ylabel("loss of a level")
        lines_shown = [figure.axes[0].plot([], [], color=colours[level], label=label(level))[0] for level in levels]
        figure.legend(handles=lines_shown, fontsize=8, loc="outside right upper")
        return png()


def _gradients(summary: dict[str, Any]) -> bytes:
    """Draw stacked bars of each level's share in the gradient of each stage, at the start (light) and the end."""
    from ladder_model_cards.figures import canvas, label

    gradients = summary["gradients"]
    levels = _levels(level for method in gradients.values() for row in method["end"].values() for level in row)
    colours = _level_colours(levels)
    columns = min(3, len(gradients))
    lines = math.ceil(len(gradients) / columns)
    figure, png, style = canvas(3.4 * columns + 1.4, 2.6 * lines)
    with style:
        for place, (method, shares) in enumerate(gradients.items()):
            axes = figure.add_subplot(lines, columns, place + 1)
            stages = list(shares["end"])
            for when, shift, alpha in (("start", -0.2, 0.45), ("end", 0.2, 1.0)):
                for index, stage in enumerate(stages):
                    bottom = 0.0
                    for level in levels:
                        share = shares[when][stage].get(level, 0.0)
                        axes.bar(index + shift, share, 0.36, bottom=bottom, color=colours[level], alpha=alpha)
                        bottom += share
            axes.set_xticks(range(len(stages)), [label(stage) for stage in stages], fontsize=8)
            axes.set_ylim(0, 1)
            axes.grid(visible=False)
            axes.set_title(label(f"{method} (left: start, right: end)"), fontsize=9)
        figure.axes[0].set_ylabel("share in the stage's gradient")
        bars = [figure.axes[0].bar([0], [0], color=colours[level], label=label(level)) for level in levels]
        figure.legend(handles=bars, fontsize=8, loc="outside right upper")
        return png()


def _stability(method: str, runs: list[dict[str, Any]], grid: dict[str, Any]) -> bytes:
    """Draw heat maps over learning rate and batch size: kNN of the last stage and of all, least spread."""
    from ladder_model_cards.figures import canvas, label

    rates = sorted({run["learning_rate"] for run in runs})
    batches = sorted({run["batch_size"] for run in runs})
    stages = [name for name in next((run["knn"] for run in runs if run["knn"]), {}) if name != _ALL]
    panels = [("least spread of a level", lambda run: run["min_std"], (0.0, 1.0))]
    if stages:
        panels = [
            (f"kNN {stages[-1]} (%)", lambda run: _percent(run["knn"].get(stages[-1])), (0.0, 100.0)),
            ("kNN all stages (%)", lambda run: _percent(run["knn"].get(_ALL)), (0.0, 100.0)),
            *panels,
        ]
    figure, png, style = canvas(0.9 + (0.8 + 0.75 * len(rates)) * len(panels), 1.2 + 0.6 * len(batches))
    with style:
        for place, (title, value_of, limits) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            values = [[math.nan] * len(rates) for _ in batches]
            for run in runs:
                column, row = rates.index(run["learning_rate"]), batches.index(run["batch_size"])
                value = value_of(run)
                values[row][column] = math.nan if value is None else value
                text = "-" if value is None else f"{value:.2f}" if limits[1] == 1 else f"{value:.0f}"
                text += "\n×" if run["collapsed"] else ""
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color="black")
            axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap="YlGn", origin="lower", aspect="auto")
            axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize=8)
            axes.set_yticks(range(len(batches)), [str(batch) for batch in batches], fontsize=8)
            axes.grid(visible=False)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("learning rate")
        figure.axes[0].set_ylabel("batch size")
        title = f"{method}, {grid['steps']} steps, seed {grid['seed']} (×: collapsed)"
        figure.suptitle(label(title), fontsize=10)
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


def _level_colours(levels: list[str]) -> dict[str, Any]:
    """Return a colour for each level, dark for early stages."""
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    return {level: shades(0.92 * index / max(1, len(levels) - 1)) for index, level in enumerate(levels)}


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
