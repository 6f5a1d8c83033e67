"""The look of every figure and page: fonts, colours in light and dark, and the canvas that figures are drawn on.

No other module sets a colour or a font (tests/model_cards/figures/test_style.py). The ten colours of a scheme stay
apart for people with protanopia, deuteranopia and tritanopia, and have a contrast of at least 3 with the paper; the
test computes both. On a page the scheme follows the reader's; figures saved as PNG have white paper in both.
"""

import colorsys
import io
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..text import one_line

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif'
"""Of pages and of drawings whose text the browser sets."""
FIGURE_FONT = "DejaVu Sans"
"""Of PNG figures: it comes with matplotlib, so the same figure has the same bytes everywhere."""
HEAT = "viridis"
"""Name of the colour map of shares and similarities, in matplotlib and in OpenCV."""
WIDTH = 5.4
"""Of a figure in inches: its text is still readable when a phone shrinks it to 360 pixels."""


@dataclass(frozen=True)
class Scheme:
    """The colours of one scheme, as "#rrggbb".

    Attributes:
        ink: Text, and the line of all stages together.
        soft: Less important text, and the baseline of a comparison.
        paper: Background.
        rule: Grid lines and borders.
        mark: Background of code, badges and bands.
        series: Of stages, levels, methods and classes, in their order.
    """

    ink: str
    soft: str
    paper: str
    rule: str
    mark: str
    series: tuple[str, ...]

    def colour(self, key: str) -> str:
        """The colour of a key: "ink", "soft", "paper", "rule", "mark", or "c0" to "c9"."""
        return self.series[int(key[1:])] if re.fullmatch(r"c\d", key) else str(getattr(self, key))


LIGHT = Scheme(
    ink="#1b1f24",
    soft="#57606a",
    paper="#ffffff",
    rule="#d8dee4",
    mark="#f6f8fa",
    series=(
        "#0056cc",
        "#e17900",
        "#0fa664",
        "#b565b2",
        "#533e00",
        "#403b69",
        "#959498",
        "#7b1035",
        "#698eff",
        "#f72042",
    ),
)
DARK = Scheme(
    ink="#e6edf3",
    soft="#9aa4af",
    paper="#0f1318",
    rule="#30363d",
    mark="#161b22",
    series=(
        "#5298da",
        "#ed6f3f",
        "#30ea94",
        "#cd92ac",
        "#ffea6a",
        "#8e6cff",
        "#dbfffb",
        "#9f4353",
        "#7f568e",
        "#9ad8f9",
    ),
)
COLOURS = len(LIGHT.series)
"""Number of colours; further series repeat them with dashes."""


@dataclass(frozen=True)
class Look:
    """How a line looks.

    Attributes:
        key: Of its colour, see `Scheme.colour`.
        dashed: Whether it is dashed.
    """

    key: str
    dashed: bool = False


def line_looks(names: Iterable[str]) -> dict[str, Look]:
    """Choose the looks of curves of stages and levels: a stage has one colour in every figure.

    Args:
        names: "stage2", "stage2.global", "all", "total", in any order; other names are series of their own.

    Returns:
        Name to look. Global losses are dashed where a stage has a local one too, region losses beside others have
        colours of their own; what belongs to all stages has the colour of text.
    """
    names = list(names)
    stages = list(dict.fromkeys(name.split(".")[0] for name in names if name not in ("all", "total")))
    ends = [re.search(r"\d+$", stage) for stage in stages]
    if all(ends):
        places = {stage: max(int(end.group()) - 1, 0) for stage, end in zip(stages, ends, strict=True) if end}
    else:
        places = {stage: number for number, stage in enumerate(stages)}
    kinds = {name.partition(".")[2] for name in names}
    found = {}
    for name in names:
        if name in ("all", "total"):
            found[name] = Look("ink", True)
            continue
        number = places[name.split(".")[0]]
        if name.endswith(".region") and len(kinds) > 1:
            number += len(stages)
        second = name.endswith(".global") and "local" in kinds
        found[name] = Look(f"c{number % COLOURS}", second or number >= COLOURS)
    return found


def method_looks(methods: Iterable[str], baseline: str) -> dict[str, Look]:
    """Choose the looks of compared methods, the same in every figure: the baseline is grey."""
    others = [name for name in methods if name != baseline]
    found = {name: Look(f"c{i % COLOURS}", i >= COLOURS) for i, name in enumerate(others)}
    return {baseline: Look("soft"), **found}


def css() -> str:
    """Write both schemes as the variables and classes of a page: `var(--ink)`, `.line.c0`, `.dot.c0`, `.fill.c0`.

    `var(--sheet)` is the paper of PNG figures, white in both schemes.
    """

    def variables(scheme: Scheme) -> str:
        named = "".join(f"--{name}:{getattr(scheme, name)};" for name in ("ink", "soft", "paper", "rule", "mark"))
        return named + "".join(f"--c{number}:{colour};" for number, colour in enumerate(scheme.series))

    classes = "".join(
        f".line.{key}{{stroke:var(--{key})}}.dot.{key},.fill.{key}{{fill:var(--{key})}}"
        for key in ("ink", "soft", *(f"c{number}" for number in range(COLOURS)))
    )
    return (
        f":root{{color-scheme:light dark;--font:{FONT};--sheet:{LIGHT.paper};{variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}{classes}"
    )


def share_bar(share: float) -> str:
    """The CSS of a table's cell with a pale bar of this share of its width; readable on light and dark paper."""
    colour = f"{LIGHT.series[8]}66"
    return f"background:linear-gradient(90deg,{colour} {100 * share:.1f}%,transparent {100 * share:.1f}%)"


def rgb(colour: str) -> tuple[int, int, int]:
    """Turn "#rrggbb" into red, green and blue from 0 to 255."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def hues(count: int) -> list[tuple[int, int, int]]:
    """Give `count` colours around the colour circle, as red, green and blue from 0 to 255: for marks of points."""
    found = []
    for number in range(count):
        red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(number / max(count, 1), 1.0, 0.9))
        found.append((red, green, blue))
    return found


def matplotlib_style() -> dict[str, Any]:
    """Give matplotlib's settings of the light scheme."""
    return {
        "figure.dpi": 100,
        "savefig.dpi": 150,
        "font.family": FIGURE_FONT,
        "font.size": 11,
        "figure.facecolor": LIGHT.paper,
        "axes.facecolor": LIGHT.paper,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": LIGHT.soft,
        "axes.labelcolor": LIGHT.ink,
        "axes.titlecolor": LIGHT.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": f"cycler('color', {list(LIGHT.series)!r})",
        "grid.color": LIGHT.rule,
        "image.cmap": HEAT,
        "text.color": LIGHT.ink,
        "xtick.color": LIGHT.soft,
        "ytick.color": LIGHT.soft,
        "xtick.labelcolor": LIGHT.ink,
        "ytick.labelcolor": LIGHT.ink,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "svg.fonttype": "path",
        "svg.hashsalt": "ladder",
    }


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

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=LIGHT.paper)
    FigureCanvasAgg(figure)

    def png() -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        return buffer.getvalue()

    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    return figure, png, matplotlib.rc_context({**defaults, **matplotlib_style()})


def legend_below(figure: Any, handles: list[Any], labels: list[str], columns: int | None = None) -> None:
    """Put one legend below all plots of a figure, so that the plots keep the width of a narrow page.

    Args:
        figure: A matplotlib figure.
        handles: What to explain.
        labels: The words.
        columns: Entries in a row; None takes as many as the longest label allows.
    """
    fitting = columns or max(1, min(4, int(62 / (6 + max(map(len, labels), default=1)))))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(fitting, max(len(labels), 1)))


def label(text: str) -> str:
    """Prepare text for a figure: one line, dollar signs escaped, because they would start a formula."""
    return one_line(text, 60).replace("$", r"\$")


def text_on(value: float) -> str:
    """The colour of text on the heat map's colour of a value from 0 to 1."""
    return LIGHT.paper if value < 0.6 else LIGHT.ink
