"""The benchmark of `ladder explore` runs and times what the page does."""

import json
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT


def test_a_quick_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "explore.py"), "--quick", "--json", str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found["images"] == 2000
    parts = ("read the file of embeddings", "build the index of the last stage", "first gallery")
    seconds = found["seconds"]
    assert abs(seconds["first view, in all"][0] - sum(seconds[part][0] for part in parts)) < 1e-6
    assert 0 < seconds["query: the search alone"][0] < seconds["query: a gallery of similar images"][0]
    assert "2,000 images" in done.stdout and "near duplicates" in done.stdout
