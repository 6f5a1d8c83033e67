"""What the benchmarks share: turns, ratios within a turn, tables, the JSON, and the page that is written from it."""

import argparse
import importlib.util
import itertools
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.paths import ROOT


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks/, whose scripts find each other by their folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def module(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, made)
        spec.loader.exec_module(made)
        return made

    return module


def test_contenders_take_turns_and_ratios_are_those_of_a_turn(load: Any) -> None:
    report = load("report")
    calls: list[str] = []
    # The clock is read before and after each work: a takes 1, 2 and 3 seconds, b takes twice as long in its turn.
    times = itertools.chain.from_iterable((0.0, length) for turn in (1, 2, 3) for length in (turn, 2 * turn))
    seconds = report.interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, lambda: next(times)
    )
    assert calls == ["a", "b"] * 4
    assert seconds == {"a": [1, 2, 3], "b": [2, 4, 6]}
    assert report.ratio(seconds, "b", "a") == 2


def test_the_page_shows_every_table_and_marks_what_is_no_result(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, page = load("report"), load("page")
    options = argparse.Namespace(quick=True, json=tmp_path / "views.json")
    made = report.Report("views", options, ("torch",))
    made.add(report.Table("photos", {"images/s": ".0f", "note": ""}, {"ladder": {"images/s": 476.4}}, ["A note."]))
    made.finish()
    assert "476" in capsys.readouterr().out
    written = json.loads((tmp_path / "views.json").read_text())
    assert written["tables"][0]["rows"] == {"ladder": {"images/s": 476.4}}
    assert {"processor", "cores", "load", "versions"} <= written["machine"].keys()
    text = page.page([written])
    assert "| ladder | 476 | - |" in text
    assert "A note." in text
    assert "**A quick variant" in text
    assert "Not measured yet: `benchmarks/step.py`" in text
    written["quick"], written["machine"]["others"] = False, 1.04
    assert "1.0 cores busy with other work" in page.page([written])
    assert "**The machine did other work too" in page.page([written])
    written["machine"]["others"], written["machine"]["load"] = 0.02, 6.0  # the load of this benchmark's own threads
    assert "**The machine did other work too" not in page.page([written])
    assert set(page.ORDER) == set(page.ABOUT)
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in page.ORDER)


def test_work_of_others_is_all_work_less_our_own(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = load("report")
    readings = iter([(100.0, 5000.0, 7.0), (110.0, 5018.0, 16.0), (120.0, 5021.0, 27.5)])
    monkeypatch.setattr(report.OtherWork, "_now", staticmethod(lambda: next(readings)))
    work = report.OtherWork()
    assert work.cores() == pytest.approx(0.9)  # 18 s at work in 10 s, 9 of them ours
    assert work.cores() == pytest.approx(0.025)
    readings = iter([None, None])
    assert report.OtherWork().cores() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat")
def test_our_own_work_is_not_that_of_others(load: Any) -> None:
    before = load("report").OtherWork._now()
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    _, busy, own = (after - first for after, first in zip(load("report").OtherWork._now(), before, strict=True))
    assert own == pytest.approx(0.5, abs=0.1)
    assert busy > 0.3  # the machine's counter has seen it, in the same unit


def test_the_page_in_the_docs_is_the_one_that_is_written(load: Any) -> None:
    page = load("page")
    results = [json.loads(file.read_text()) for file in sorted((ROOT / "docs" / "performance").glob("*.json"))]
    assert (ROOT / "docs" / "performance.md").read_text() == page.page(results)
