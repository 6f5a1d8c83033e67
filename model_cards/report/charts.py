"""Line charts as SVG inside the page: they follow its light or dark colours and print sharply."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from ..figures.style import Look, line_looks
from ..text import spoken

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 10, 38
MAX_POINTS = 400
Points = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Points],
    y_title: str,
    x_title: str = "step of training",
    bottom: float | None = None,
    looks: Mapping[str, Look] | None = None,
) -> str:
    """Draw lines over a common axis, each labelled at its end.

    Args:
        lines: Name -> points (x, y). Lines without points are left out.
        y_title: What the vertical axis shows, with its unit.
        x_title: What the horizontal axis shows.
        bottom: Lowest value of the vertical axis; None takes it from the data.
        looks: Name -> look; None takes those of stages and levels.

    Returns:
        An `<figure>` element; empty if no line has points.
    """
    lines = {name: thinned(points) for name, points in lines.items() if points}
    if not lines:
        return ""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_ticks = ticks(min(xs), max(xs))
    y_ticks = ticks(min(ys) if bottom is None else min(bottom, *ys), max(ys))
    x_low, x_high = min(x_ticks[0], *xs), max(x_ticks[-1], *xs)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / ((y_high - y_low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in y_ticks:
        y = place(x_low, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown(value)}</text>')
    for value in x_ticks:
        x = place(value, y_low)[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{shown(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>')
    ends = []
    looks = line_looks(lines) if looks is None else looks
    for name, points in lines.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        look = looks[name]
        dashes = ' stroke-dasharray="5 3"' if look.dashed else ""
        parts.append(f'<polyline class="line {look.key}" points="{path}"{dashes}/>')
        if len(points) < 40:
            for x, y in points:
                across, up = place(x, y)
                told = f"{escape(spoken(name))}: {shown(y)} at {shown(x)}"
                circle = f'cx="{across:.1f}" cy="{up:.1f}" r="3"'
                parts.append(f'<circle class="dot {look.key}" {circle}><title>{told}</title></circle>')
        ends.append((place(*points[-1])[1], name))
    for y, name in spread(ends):
        dashes = ' stroke-dasharray="5 3"' if looks[name].dashed else ""
        x = WIDTH - RIGHT + 6
        parts.append(f'<polyline class="line {looks[name].key}" points="{x},{y:.1f} {x + 14},{y:.1f}"{dashes}/>')
        parts.append(f'<text x="{x + 18}" y="{y + 4:.1f}">{escape(spoken(name)[:22])}</text>')
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(y_title)}</figcaption>{drawing}</figure>"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values that enclose a range: at most `most` + 1 of them, at steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-200):
        high = low + (abs(low) if abs(low) > 1e-200 else 1)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def shown(value: float) -> str:
    """Write a number of an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def thinned(points: Points) -> Points:
    """At most `MAX_POINTS` of the points, evenly chosen, the last one among them."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(number * step)] for number in range(MAX_POINTS)]


def spread(ends: Sequence[tuple[float, str]], gap: float = 17) -> list[tuple[float, str]]:
    """Move labels apart vertically so that none covers another, and keep them inside the drawing."""
    placed: list[tuple[float, str]] = []
    for y, name in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, name))
    over = placed[-1][0] - (HEIGHT - BOTTOM)
    limit: float = HEIGHT - BOTTOM
    if over > 0:
        for number in range(len(placed) - 1, -1, -1):
            y, name = placed[number]
            placed[number] = (min(y, limit), name)
            limit = placed[number][0] - gap
    return placed
