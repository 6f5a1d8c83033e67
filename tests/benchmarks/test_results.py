"""The tables of docs/results.md: made from cells as they should be, and up to date."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from helpers.scripts import loaded_script


@pytest.fixture(scope="module")
def results() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/results.py") as module:
        yield module


def row(evaluation: str, **methods: dict[str, float]) -> dict:
    """A row as comparison.json has it."""
    return {
        "evaluation": evaluation,
        "metric": "box AP",
        "methods": {name: {"values": values} for name, values in methods.items()},
    }


def test_a_line_is_the_mean_of_its_evaluations_over_the_seeds_that_have_both(results) -> None:
    comparison = {
        "rows": [
            row("a", byol={"0": 0.10, "1": 0.20, "2": 0.30}, ladder={"0": 0.13, "1": 0.21, "2": 0.5}),
            row("b", byol={"0": 0.30, "1": 0.20}, ladder={"0": 0.33, "1": 0.25}),
        ]
    }
    line = results.Line("both", "box AP", ("a", "b"))
    assert results.values_of(comparison, line, "byol") == pytest.approx({0: 20.0, 1: 20.0})
    assert results.values_of(comparison, line, "ladder") == pytest.approx({0: 23.0, 1: 23.0})
    text = results.table(results.Table("x", (line, results.Line("absent", "box AP", ("c",)))), comparison)
    assert text.splitlines()[2:] == ["| both | 20.0 ± 0.0 | 23.0 ± 0.0 | **+3.0 [+3.0, +3.0]** | 2 |"]


def test_an_interval_that_holds_zero_is_not_bold_and_one_seed_has_none(results) -> None:
    line = results.Line("one", "box AP", ("a",))
    plan = results.Table("x", (line,), same_time="short")
    comparison = {"rows": [row("a", byol={"0": 0.1, "1": 0.2}, ladder={"0": 0.2, "1": 0.2}, short={"1": 0.25})]}
    # Differences 10 and 0: mean 5, deviation 7.07, t 12.7: half an interval of 63.5.
    found = results.table(plan, comparison).splitlines()[2]
    assert found == "| one | 15.0 ± 7.1 | 20.0 ± 0.0 | +5.0 [-58.5, +68.5] | 25.0 | +5.0 | 2 |"


def test_a_difference_of_nothing_has_no_sign(results) -> None:
    values = {"0": 0.1, "1": 0.2}
    comparison = {"rows": [row("a", byol=values, ladder={"0": 0.0999999, "1": 0.1999999})]}
    found = results.table(results.Table("x", (results.Line("one", "box AP", ("a",)),)), comparison)
    assert found.splitlines()[2] == "| one | 15.0 ± 7.1 | 15.0 ± 7.1 | **0.0 [0.0, 0.0]** | 2 |"


def test_the_page_is_up_to_date(results) -> None:
    page = results.PAGE.read_text(encoding="utf-8")
    assert results.written(page) == page, "run python benchmarks/study/results.py"


def test_a_page_without_marks_is_refused(results) -> None:
    with pytest.raises(ValueError, match="needs the marks <!-- table"):
        results.written("no table")
