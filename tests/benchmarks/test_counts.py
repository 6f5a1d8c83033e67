"""The Ladder's step over BYOL's, counted: the bounds that docs promise."""

import json
import subprocess
import sys

import pytest

from helpers.paths import ROOT


@pytest.mark.slow
def test_the_ladder_costs_little_more_than_byol(tmp_path) -> None:
    file = tmp_path / "counts.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "counts.py"), "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    rows = json.loads(file.read_text())["tables"][0]["rows"]
    ratio = rows["Ladder / BYOL"]
    assert rows["BYOL"]["TFLOP"] == pytest.approx(8.33, rel=0.01)
    assert ratio["GB moved"] <= 1.09
    assert ratio["GB saved"] <= 1.02
    assert ratio["launches"] <= 1.4
    assert rows["BYOL"]["launches"] < 1500
