"""The clock run of a new user, on the digits and with a few steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT


@pytest.mark.slow
def test_every_command_of_the_first_hour_works(tmp_path: Path) -> None:
    short = {"STEPS": "20", "IMAGES": "300", "TUNING": "--min_steps 10 --epochs 1", "OMP_NUM_THREADS": "1"}
    command = {"LADDER": str(Path(sys.executable).with_name("ladder"))}
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "first_hour.sh"), "digits", str(tmp_path)],
        env={**os.environ, **short, **command},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    rows = [line.split("\t") for line in (tmp_path / "first_hour.tsv").read_text().splitlines()]
    assert {row[0]: row[1] for row in rows} == dict.fromkeys(
        ("folder", "pretrain", "evaluate", "embed", "export", "finetune"), "0"
    ), done.stdout
    assert done.returncode == 0
    table = done.stdout.split("kNN, pretrained beside untrained:")[1]
    assert "untrained" in table and all(f"stage{number}" in table for number in (1, 2, 3, 4))
    assert len(list((tmp_path / "photos").iterdir())) == 300
