"""The notebook runs from top to bottom, and its results show themselves as tables and figures."""

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest

from helpers.paths import ROOT

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"
WORDS = {  # a word of a cell's code -> the kind of its result
    "Report(": "text/html",
    "look/pca.png": "image/png",
    "look/neighbours-stage2.png": "image/png",
    "evaluation.knn": "text/html",
    "evaluation.linear": "text/html",
    "plt.show()": "image/png",
    "finetune(": "text/html",
}


def results(notebook: Any) -> dict[str, str]:
    """Word of `WORDS` -> the result of its cell, in the kind that is expected there."""
    found = {}
    for cell in notebook.cells:
        for word, kind in WORDS.items():
            if cell.cell_type == "code" and word in cell.source:
                found[word] = next((out.data[kind] for out in cell.outputs if kind in out.get("data", {})), "")
    return found


def rows(table: str) -> dict[str, list[float]]:
    """The numbers of a table's rows by their name."""
    found = re.findall(r"<tr><th>(\w+)</th>(.*?)</tr>", table)
    return {name: [float(value) for value in re.findall(r">(\d\.\d+)<", cells)] for name, cells in found}


def check(notebook: Any) -> None:
    """Every result is there and says what the text promises."""
    shown = results(notebook)
    assert shown.keys() == WORDS.keys()
    assert shown["Report("].startswith("<iframe srcdoc=") and shown["Report("].count("&lt;svg") >= 4
    assert "kNN accuracy on held-out images" in shown["Report("]
    accuracy, *_, untrained = rows(shown["evaluation.knn"])["mean"]
    assert accuracy > untrained + 0.005
    assert rows(shown["evaluation.linear"])["all"][0] > 0.8
    assert max(values[0] for values in rows(shown["finetune("]).values()) > 0.9


def test_the_committed_results_are_complete() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check(notebook)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/tmp|/home|/root|/work|Traceback", text)
    assert len(text) < 1_000_000


@pytest.mark.slow  # a minute and more: it pretrains, evaluates twice and fine-tunes
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    check(runpy.run_path(str(ROOT / "docs" / "run_notebook.py"))["run"](NOTEBOOK, tmp_path))
