"""Commands that `kill_server.py` runs on a small data set, to be interrupted at a known moment, and their results."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.models import TINY_YAML
from helpers.paths import HELPERS
from helpers.stream_data import encoded

IMAGES, SPOILT = 45, (3, 31)
STEPS = 48
RECIPE = f"""
image_size: 32
backbone_config: {TINY_YAML}
projection_hidden_size: 32
projection_size: 16
local_grid_size: 3
base_momentum: 0.9
optimizer: lars
learning_rate: 0.3
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
warmup_steps: 5
logging_steps: 1
save_steps: 2
save_total_limit: 1
monitor_steps: 3
shuffle_buffer: 16
max_bad_fraction: 0.3
stop_on_collapse: false
use_cpu: true
disable_tqdm: true
"""


def make_place(folder: Path) -> Path:
    """Write a recipe, and a data set of 45 images, two of them cut off, with a test split for monitoring."""
    for split, first, count in (("train", 0, IMAGES), ("test", 100, 20)):
        for number in range(count):
            path = folder / "set" / split / "ab"[number % 2] / f"{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            data = encoded(32, seed=first + number)
            path.write_bytes(data[: len(data) // 2] if split == "train" and number in SPOILT else data)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


class Server:
    """`kill_server.py`, and the command it runs."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
        command = [sys.executable, str(HELPERS / "kill_server.py")]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)
        self._folder = folder

    def start(self, words: list[str], processes: int = 1) -> int:
        """Start a command in one or more processes; returns the number of the first."""
        phases = self._folder / "phases"
        if not phases.exists():
            os.mkfifo(phases)
        self._phases = os.open(phases, os.O_RDONLY | os.O_NONBLOCK)
        request = {"words": words, "log": str(self._folder / "log"), "phases": str(phases), "processes": processes}
        self._server.stdin.write(json.dumps(request) + "\n")
        self.processes = [int(number) for number in self._server.stdout.readline().split()]
        return self.processes[0]

    def wait_for(self, phase: str, count: int) -> bool:
        """Wait until a phase has begun `count` times; False if the command ends before."""
        rest = b""
        while count:
            ready, _, _ = select.select([self._phases, self._server.stdout], [], [], 300)
            assert ready, "neither a phase nor an end in five minutes"
            try:
                found = os.read(self._phases, 65536) if self._phases in ready else b""
            except BlockingIOError:
                found = b""
            *lines, rest = (rest + found).split(b"\n")
            count -= min(count, lines.count(phase.encode()))
            if not found:
                if self._server.stdout in ready:
                    return False
                time.sleep(0.005)  # the command has not opened the pipe yet
        return True

    def end(self) -> int:
        """Wait for the end; returns the exit status of all processes, -9 where they were killed."""
        codes = {int(code) for code in self._server.stdout.readline().split()}
        os.close(self._phases)
        assert len(codes) == 1, (codes, (self._folder / "log").read_text()[-3000:])
        return codes.pop()

    def run(self, words: list[str], processes: int = 1) -> None:
        """Run a command that must succeed."""
        self.start(words, processes)
        self.wait_for("the end", 1)
        code = self.end()
        assert code == 0, (self._folder / "log").read_text()[-3000:]

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


def command(place: Path, output: str, streaming: bool, workers: int, steps: int) -> list[str]:
    words = ["pretrain", str(place / "recipe.yaml"), "--dataset", str(place / "set"), "--output", str(place / output)]
    words += ["--dataloader_num_workers", str(workers), "--max_steps", str(steps)]
    return [*words, "--streaming"] if streaming else words


def assert_same_run(whole: Path, broken: Path) -> None:
    """Every tensor of both networks and heads, the exported backbone, and every figure that was logged."""
    for name in ("pretraining/model.safetensors", "model.safetensors"):
        first, second = load_file(whole / name), load_file(broken / name)
        assert first.keys() == second.keys()
        differing = [key for key in first if not torch.equal(first[key], second[key])]
        assert not differing, differing[:5]
    histories = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (whole, broken)]
    timed = ("images_per_second", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
    first, second = (
        [{k: v for k, v in entry.items() if k not in timed and k != "total_flos"} for entry in history]
        for history in histories
    )
    assert first == second
    bad = [json.loads(line)["key"] for line in (broken / "bad_images.jsonl").read_text().splitlines()]
    assert sorted(Path(key).name for key in bad) == sorted(f"{number:02d}.jpg" for number in SPOILT)
