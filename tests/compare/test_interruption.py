"""A comparison that is asked to end lets each of its processes save its run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.kill_client import make_place
from ladder_training.runs.checkpoints import damage, list_checkpoints
from ladder_training.trainer.resuming import missing_part


@pytest.mark.slow
def test_sigterm_reaches_the_processes_of_a_comparison(tmp_path: Path) -> None:
    place, out = make_place(tmp_path), tmp_path / "out"
    words = ["compare", str(place / "recipe.yaml"), "--dataset", str(place / "set"), "--output", str(out)]
    words += ["--methods", "ladder", "byol", "--seeds", "0", "1", "--jobs", "2", "--max_steps", "5000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ladder_training", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while len({path.parent for path in out.glob("runs/**/checkpoint-*")}) < 2:
        assert process.poll() is None and time.monotonic() < until, process.communicate(timeout=5)
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)  # the processes do not begin with what the pool gave them ahead
    assert process.returncode == 143, error[-2000:]
    assert error.strip().splitlines()[-1] == (
        "ladder: interrupted by SIGTERM; the same command goes on from the last checkpoint"
    )
    runs = [path.parent for path in out.glob("runs/**/run.json")]
    assert len(runs) == 2
    for run in runs:
        record = json.loads((run / "run.json").read_text())
        newest = list_checkpoints(run)[-1]
        assert (record["status"], f"checkpoint-{record['steps']}") == ("interrupted", newest.name)
        assert damage(newest, missing_part) is None
        assert not (run / ".lock").exists()
    assert not (out / "logs" / ".lock").exists()
