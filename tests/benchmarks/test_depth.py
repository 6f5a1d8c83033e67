"""The table of the lead by depth: figures, bold where an interval holds no zero, and the order of the depths."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers.scripts import loaded_script


@pytest.fixture(scope="module")
def depth() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/depth.py") as module:
        yield module


def write_comparison(folder: Path, lead: float, low: float | None, share: float | None) -> Path:
    high = None if low is None else lead + 0.05
    ladder = {"mean": 0.4 + lead, "difference": {"mean": lead, "low": low, "high": high}}
    rows = [
        {"task": "knn", "metric": f"accuracy {stage}", "methods": {"byol": {"mean": 0.4}, "ladder": ladder}}
        for stage in ("stage1", "stage2", "all")
    ]
    reached = [{"method": "ladder", "features": row["metric"].removeprefix("accuracy "), "mean": share} for row in rows]
    folder.mkdir(parents=True)
    comparison = {"rows": rows, "steps_to_reach": reached, "seeds": [0, 1]}
    (folder / "comparison.json").write_text(json.dumps(comparison))
    return folder


def test_depths_are_in_order_and_bold_is_where_an_interval_holds_no_zero(depth: ModuleType, tmp_path: Path) -> None:
    deep = write_comparison(tmp_path / "blocks16", 0.031, 0.01, 0.25)
    flat = write_comparison(tmp_path / "blocks2", 0.012, -0.02, None)
    lines = depth.table([deep, flat]).splitlines()
    shallow = " | ".join(["40.0 / 41.2 | +1.2 [-2.0, +6.2]"] * 3)
    assert lines[2] == f"| 2 | {shallow} | {' / '.join(['not reached'] * 3)} | 0, 1 |"
    steep = " | ".join(["40.0 / 43.1 | **+3.1 [+1.0, +8.1]**"] * 3)
    assert lines[3] == f"| 16 | {steep} | 0.25 / 0.25 / 0.25 | 0, 1 |"
    assert len(lines[0].split("|")) == len(lines[1].split("|")) == len(lines[2].split("|"))


def test_one_seed_has_no_interval_and_a_folder_of_another_name_has_a_line(depth: ModuleType, tmp_path: Path) -> None:
    assert "| 40.0 / 41.0 | +1.0 |" in depth.line(write_comparison(tmp_path / "blocks4", 0.01, None, 0.5))
    with pytest.raises(SystemExit, match=r"must be blocks and a number, such as blocks8"):
        depth.folder_blocks(tmp_path / "deep")
