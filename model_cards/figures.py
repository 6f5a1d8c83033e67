"""Draw figures of a training run from its log: losses, accuracy of each stage, signs of collapse."""

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from .text import one_line
from .values import numbers

Curves = dict[str, list[tuple[float, float]]]
Panels = list[tuple[Curves, str, float | None]]
LARGEST_SHOWN = 1e12
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


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
        found["loss.png"] = _lines([(losses, "loss of a level (2 − 2 cos, two directions)", None)])
    accuracy = {name: [(s, 100 * v) for s, v in points] for name, points in curves(log, "knn").items()}
    if accuracy:
        found["knn.png"] = _lines([(accuracy, "kNN accuracy on held-out images (%)", None)])
    spread, rank = curves(log, "std"), curves(log, "rank")
    panels: Panels = [(spread, "spread of projections (1: healthy, 0: collapsed)", 0.0), (rank, "effective rank", 0.0)]
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


def canvas(width: float, height: float) -> tuple[Any, Callable[[], bytes], AbstractContextManager[None]]:
    """Create an empty figure without changing the caller's matplotlib backend or style.

    Args:
        width: In inches.
        height: In inches.

    Returns:
        The figure, a function that returns it as a PNG, and a context manager that sets the style to draw in.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)

    def png() -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()

    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    return figure, png, matplotlib.rc_context({**defaults, **STYLE})


def label(text: str) -> str:
    """Prepare text for a figure: one line, dollar signs escaped, because they would start a formula."""
    return one_line(text, 60).replace("$", r"\$")


def _lines(panels: Panels) -> bytes:
    """Draw line plots below each other. A stage has the same colour in all of them."""
    import matplotlib

    # All figures have the same width, so their text has the same size on a page that scales them.
    figure, png, style = canvas(6.2, 3.2 if len(panels) == 1 else 2.6 * len(panels))
    with style:
        for place, (lines, title, bottom) in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            stages = sorted({_stage(name) for name in lines}, key=_natural)
            stage_only = [stage for stage in stages if stage not in ("all", "total")]
            shades = matplotlib.colormaps["viridis"]
            colours = {s: shades(0.9 * i / max(1, len(stage_only) - 1)) for i, s in enumerate(stage_only)}
            for name, points in lines.items():
                axes.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    label=label(name),
                    color=colours.get(_stage(name), "black"),
                    linestyle="--" if name.endswith(".global") or _stage(name) not in colours else "-",
                    marker="o" if len(points) < 25 else None,
                    markersize=3,
                )
            last = place == len(panels) - 1
            axes.set_xlabel("optimizer step" if last else "")
            axes.set_title(title, fontsize=10)
            if bottom is not None:
                axes.set_ylim(bottom=bottom)
            if place == 0 or {*lines} != {*panels[0][0]}:
                axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return png()


def series(log: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """Collect the points (step, value) of one key of a log; values that are not finite are left out."""
    points: dict[float, float] = {}
    for entry in log:
        pair = numbers([entry.get("step"), entry.get(key)])
        if len(pair) == 2 and max(map(abs, pair)) < LARGEST_SHOWN:
            points[pair[0]] = pair[1]
    return sorted(points.items())


def _stage(name: str) -> str:
    return name.split(".")[0]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (10**9, part) for part in re.split(r"(\d+)", name)]
