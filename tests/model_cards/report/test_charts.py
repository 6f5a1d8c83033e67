"""Charts of a report: axes that enclose the data, points where they belong, labels that do not cover each other."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_model_cards.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, spread, thinned, ticks

finite = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
        (0.33, 0.48, [0.3, 0.35, 0.4, 0.45, 0.5]),
        (5, 5, [5, 6, 7, 8, 9, 10]),
        (-0.2, 0.2, [-0.2, -0.1, 0, 0.1, 0.2]),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(finite, finite)
def test_ticks_of_any_range(low: float, high: float) -> None:
    low, high = sorted((low, high))
    found = ticks(low, high)
    slack = 1e-6 * max(1e-6, abs(low), abs(high))
    assert 2 <= len(found) <= 8
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


def test_a_line_runs_through_its_points() -> None:
    chart = line_chart({"stage1": [(0, 0.0), (50, 5.0), (100, 10.0)]}, "kNN")
    points = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', chart)[1].split()]
    assert points == [
        (LEFT, HEIGHT - BOTTOM),
        pytest.approx(((LEFT + WIDTH - RIGHT) / 2, (HEIGHT - BOTTOM + TOP) / 2)),
        (WIDTH - RIGHT, TOP),
    ]
    assert "<title>stage 1: 5 at 50</title>" in chart


def test_names_are_escaped_and_nothing_is_drawn_without_points() -> None:
    assert "<script>" not in line_chart({"<script>": [(0, 1.0)]}, "a & b")
    assert line_chart({"empty": []}, "nothing") == ""


@given(st.lists(st.floats(0, HEIGHT), min_size=1, max_size=12))
def test_labels_keep_their_distance(places: list[float]) -> None:
    placed = sorted(y for y, _ in spread([(y, str(n)) for n, y in enumerate(places)]))
    assert all(after - before >= 14 - 1e-9 for before, after in itertools.pairwise(placed))
    assert placed[-1] <= max(HEIGHT - BOTTOM, 0) + 1e-9 or len(placed) * 14 > HEIGHT


def test_a_long_series_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(step), float(step)) for step in range(10_000)]
    kept = thinned(points)
    assert (len(kept), kept[0], kept[-1]) == (400, points[0], points[-1])
