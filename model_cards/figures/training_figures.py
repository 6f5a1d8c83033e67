"""Draw figures of a training run from its log: losses, accuracy of each stage, signs of collapse."""

import math
import re
from typing import Any

from ..text import spoken
from ..values import numbers
from .style import LIGHT, WIDTH, canvas, label, legend_below, line_looks

Curves = dict[str, list[tuple[float, float]]]
Panels = list[tuple[Curves, str, float | None]]
LARGEST_SHOWN = 1e12


def training_figures(log: list[dict[str, Any]]) -> dict[str, bytes]:
    """Draw every figure for which the log has numbers.

    Args:
        log: transformers' `log_history`: entries with "step" and "loss", "loss/LEVEL", "knn/STAGE", "std/LEVEL",
            "rank/LEVEL".

    Returns:
        File name to the bytes of a PNG. The same log gives the same bytes.
    """
    found = {}
    losses = curves(log, "loss")
    if len(losses) < 2:
        losses = losses or {"total": total} if (total := series(log, "loss")) else losses
    if losses:
        found["loss.png"] = _lines([(losses, "Loss of each stage (lower: both views agree more)", None)])
    accuracy = {name: [(s, 100 * v) for s, v in points] for name, points in curves(log, "knn").items()}
    if accuracy:
        found["knn.png"] = _lines([(accuracy, "kNN accuracy on held-out images (%)", None)])
    spread, rank = curves(log, "std"), curves(log, "rank")
    panels: Panels = [
        (spread, "Spread of the projections (1: healthy, 0: collapsed)", 0.0),
        (rank, "Directions that the projections use (effective rank)", 0.0),
    ]
    panels = [panel for panel in panels if panel[0]]
    if panels:
        found["collapse.png"] = _lines(panels)
    return found


def curves(log: list[dict[str, Any]], group: str) -> Curves:
    """Collect the curves of every "GROUP/NAME" in a log.

    Args:
        log: See `training_figures`.
        group: "loss", "knn", "std" or "rank".

    Returns:
        Name to its points (step, value), first stage first. Values that are not finite are left out.
    """
    names = {key for entry in log for key in entry if isinstance(key, str) and key.startswith(f"{group}/")}
    found = {name.split("/", 1)[1]: series(log, name) for name in sorted(names, key=_natural)}
    # The curve of all stages together comes last.
    found["all"] = found.pop("all", [])
    return {name: points for name, points in found.items() if points}


def _lines(panels: Panels) -> bytes:
    """Draw line plots below each other. A stage has the same colour in all of them."""
    names = list(dict.fromkeys(name for lines, _, _ in panels for name in lines))
    looks = line_looks(names)
    rows = math.ceil(len(names) / 3)
    figure, png, style = canvas(WIDTH, 2.6 * len(panels) + 0.5 + 0.2 * rows)
    with style:
        shown: dict[str, Any] = {}
        for place, (lines, title, bottom) in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            for name, points in lines.items():
                (shown[name],) = axes.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    color=LIGHT.colour(looks[name].key),
                    linestyle="--" if looks[name].dashed else "-",
                    marker="o" if len(points) < 25 else None,
                )
            axes.set_xlabel("step of training" if place == len(panels) - 1 else "")
            axes.set_title(title)
            if bottom is not None:
                axes.set_ylim(bottom=bottom)
        legend_below(figure, list(shown.values()), [label(spoken(name)) for name in shown])
        return png()


def series(log: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """Collect the points (step, value) of one key of a log; values that are not finite are left out."""
    points: dict[float, float] = {}
    for entry in log:
        pair = numbers([entry.get("step"), entry.get(key)])
        if len(pair) == 2 and max(map(abs, pair)) < LARGEST_SHOWN:
            points[pair[0]] = pair[1]
    return sorted(points.items())


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (10**9, part) for part in re.split(r"(\d+)", name)]
