"""From files to steps against lightly: what is timed, what share of it is input, and the smallest case as a command."""

import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from helpers.paths import ROOT
from helpers.scripts import loaded_script

pytest.importorskip("lightly", reason="lightly is installed with the dev extra")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/end_to_end.py") as module:
        yield module


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("workers", "warm"), [(0, 1), (2, 5)])
def test_the_share_of_the_input_is_the_time_until_the_next_batch_is_there(
    script: ModuleType, workers: int, warm: int
) -> None:
    clock, made, closed = Clock(), [], []

    def batches() -> Iterator[dict]:
        try:
            while True:
                # The first ones are slow, as those of workers that still start.
                clock.now += 3 if len(made) >= warm else 1000
                made.append(len(made))
                yield {}
        finally:
            closed.append(True)

    def step(batch: dict) -> None:
        clock.now += 1

    def wait() -> None:
        clock.now += 0.5  # a GPU that finishes its queue; before the start it is not counted

    assert script.timed(step, batches(), 6, workers, clock, wait) == (6 * (3 + 1) + 0.5, 6 * 3)
    assert len(made) == warm + 6 and closed == [True]


@pytest.mark.parametrize(("workers", "clocks"), [(0, "process_time"), (2, "perf_counter")])
def test_processor_time_is_taken_where_one_process_does_all(
    script: ModuleType, workers: int, clocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the table says so, with the medians of its rounds and the ratio within a round."""
    times = {"BYOL": iter([(4.0, 1.0), (2.0, 1.0), (4.0, 2.0)]), "Ladder": iter([(8.0, 2.0)] * 3)}
    times["lightly"] = iter([(8.0, 6.0), (8.0, 4.0), (4.0, 3.0)])
    names = {"byol": "BYOL", "ladder": "Ladder", "lightly_byol": "lightly"}
    for function, name in names.items():
        monkeypatch.setattr(script, function, lambda backbone, device, name=name: name)
    given = []

    def timed(step, batches, steps, workers, clock, wait):
        given.append((steps, workers, clock.__name__))
        return next(times[step])

    monkeypatch.setattr(script, "timed", timed)
    options = SimpleNamespace(device="cpu", batch_size=None, workers=workers, rounds=3, steps=5)
    table = script.measure("small-64", ROOT, "noise", options)
    assert given == [(5, workers, clocks)] * 9
    assert table.title.startswith(f"small-64 on cpu, batch 64, {workers} workers, noise; 3 rounds of 5 steps")
    assert ("by processor time of one core" in table.title) == (workers == 0)
    row = table.rows["BYOL"]
    assert row["images/s"] == 5 * 64 / 4 and row["x lightly"] == 2.0 and row["input"] == 0.5
    assert table.rows["lightly BYOL"]["x lightly"] == 1 and table.rows["lightly BYOL"]["input"] == 0.75


def test_the_small_case_is_the_network_of_the_study(script: ModuleType) -> None:
    recipe = yaml.safe_load((ROOT / "benchmarks" / "study" / "imagenette96.yaml").read_text(encoding="utf-8"))
    network = {name: value for name, value in recipe["backbone_config"].items() if name != "model_type"}
    assert script.ladder.__globals__["RESNETS"][script.CASES["small-64"][0]] == network


def test_the_command_measures_one_core_unless_workers_are_asked_for(tmp_path) -> None:
    file = tmp_path / "e.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "end_to_end.py"), "--quick", "--json", str(file)]
    command += ["--photos", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(file.read_text())
    assert result["quick"] and result["machine"]["threads"] == 1
    [table] = result["tables"]
    assert "small-64 on cpu, batch 4, 0 workers, 24 images of noise" in table["title"]
    assert table["title"].endswith("1 rounds of 2 steps, by processor time of one core")
    assert list(table["rows"]) == ["BYOL", "Ladder, four levels", "lightly BYOL"]
    for row in table["rows"].values():
        assert row["images/s"] > 0 and 0 < row["input"] < 1
    assert table["rows"]["lightly BYOL"]["x lightly"] == 1
