"""The table of heads and exports: what it shows is computed, and the command ends."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers.paths import ROOT

pytest.importorskip("timm", reason="timm is installed with the dev extra")
PAGE, RESULT = ROOT / "docs" / "how_to" / "exports.md", ROOT / "docs" / "how_to" / "exports.json"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/export_table.py, whose scripts find each other by their folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("report", "export_cells", "head_cells"):
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    made = importlib.import_module("export_table")
    monkeypatch.delitem(sys.modules, "export_table")
    return made


def test_what_hangs_or_dies_is_a_line_and_leaves_no_process(table: ModuleType, tmp_path: Path) -> None:
    def hang() -> Any:
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "child").write_text(str(child.pid))
        time.sleep(60)

    def fail() -> Any:
        raise RuntimeError("too\n large")

    start = time.monotonic()
    assert table.in_time(2, hang) == table.Cell(None, "not within 2 s")
    assert time.monotonic() - start < 20
    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    assert not child.exists() or child.read_text().split()[2] in "ZX"
    assert table.in_time(60, lambda: os._exit(9)) == table.Cell(None, "the process ended with code 9")
    assert table.in_time(60, fail) == table.Cell(None, "RuntimeError: too large")
    assert table.in_time(60, lambda: table.Cell(1e-7)) == table.Cell(1e-7)


HEADS = ["UperNet", "DETR", "Mask2Former", "classifier", "detector", "finetune classification"]


@pytest.mark.parametrize("row", ["resnet (tiny)", "swin"])
def test_weights_that_are_not_there_are_seen(
    table: ModuleType, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for column in HEADS:
        cell = table.work_of(column, row, tmp_path / column)
        assert cell.difference is not None and cell.difference <= 1e-5, (column, cell)
    heads: Any = sys.modules["head_cells"]
    monkeypatch.setattr(heads, "load_backbone_into", lambda model, source: model)
    for column in ("UperNet", "DETR", "Mask2Former"):
        cell = table.work_of(column, row, tmp_path / f"{column} again")
        assert cell.difference is not None and cell.difference > 1e-2, (column, cell)


def test_a_wrong_tensor_in_a_file_for_detectron2_is_seen(table: ModuleType, tmp_path: Path) -> None:
    cells: Any = sys.modules["export_cells"]
    for row in ("resnet (standard widths)", "resnet (tiny)"):  # basic and bottleneck blocks
        cell = table.work_of("detectron2", row, tmp_path / row)
        assert cell.difference is not None and cell.difference <= 1e-5, cell
    backbone = cells.make_backbone(cells.configs()["resnet (tiny)"](), tmp_path / "model")
    with torch.no_grad():
        backbone.get_parameter("encoder.stages.2.layers.0.layer.1.normalization.bias").add_(1)
    cell = cells.export_cell(backbone, tmp_path / "model", "detectron2", tmp_path / "output")
    assert cell.difference is not None and cell.difference > 1e-3


def test_the_command_writes_the_table_between_the_marks_of_a_page(table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{table.BEGIN}\nyesterday\n{table.END}\n\nAfter.\n")
    words = ["--rows", "convnext", "--columns", "UperNet", "torchvision"]
    files = ["--json", str(tmp_path / "r.json"), "--page", str(page)]
    command = [sys.executable, str(ROOT / "benchmarks" / "export_table.py"), *words, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["rows"]["convnext"]["UperNet"]["difference"] <= 1e-5
    text = page.read_text()
    assert text.startswith("# Before\n\n") and text.endswith("\n\nAfter.\n") and "yesterday" not in text
    assert "| Exported to | torchvision |\n|---|---|\n| convnext | [1] |" in text
    assert "\n1. this format holds ResNets only" in text
    with pytest.raises(SystemExit, match="has no lines"):
        table.rewritten("no marks", "x")


def test_the_page_shows_the_committed_result_and_all_of_it(table: ModuleType) -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert list(result["rows"]) == list(table.configs())
    for cells in result["rows"].values():
        assert list(cells) == [*table.HEADS, *table.WRITERS]
        assert all(
            cell["text"] if cell["difference"] is None else cell["difference"] <= 1e-5 for cell in cells.values()
        )
    page = PAGE.read_text(encoding="utf-8")
    assert table.rewritten(page, table.page_text(result)) == page


def test_what_a_refusal_recommends_is_checked_in_the_same_row() -> None:
    """So is what `ladder finetune segmentation` recommends: a command, not a format."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    found = 0
    for cells in result["rows"].values():
        for cell in cells.values():
            recommended = cell["text"].rpartition("; use ")[2].split(" or ") if "; use " in cell["text"] else []
            for kind in recommended:
                if kind in cells:
                    found += 1
                    assert cells[kind]["difference"] is not None, cell["text"]
    assert found > 10
