"""Data workers where the system does not fork them: macOS, Windows, and Python 3.14 on Linux."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import multiprocessing, sys

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    from ladder_training.cli.entry import main

    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_trains_with_workers_that_are_not_forked(tmp_path: Path, method: str, streaming: bool) -> None:
    generator = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(images / f"{number}.png")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    options = {
        "dataset": images,
        "streaming": str(streaming).lower(),
        "max_steps": 3,
        "dataloader_num_workers": 2,
        "per_device_train_batch_size": 8,
        "monitor_steps": 0,
        "output": tmp_path / "run",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(program), method, "pretrain", "digits", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"finished: {tmp_path / 'run'} holds the backbone" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
