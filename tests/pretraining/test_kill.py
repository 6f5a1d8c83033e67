"""A training process killed at any moment goes on, by the same command, to the same weights bit for bit."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.models import TINY_YAML
from helpers.paths import HELPERS
from helpers.stream_data import encoded
from ladder_training.runs.checkpoints import damage, list_checkpoints

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
CONFIGURATIONS = [
    pytest.param(streaming, workers, id=f"{'stream' if streaming else 'map'}-{workers}-workers")
    for streaming in (False, True)
    for workers in (0, 2)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and a data set of 45 images, two of them cut off, with a test split for monitoring."""
    folder = tmp_path_factory.mktemp("kill")
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

    def start(self, words: list[str]) -> int:
        """Start a command; returns the number of its process."""
        phases = self._folder / "phases"
        if not phases.exists():
            os.mkfifo(phases)
        self._phases = os.open(phases, os.O_RDONLY | os.O_NONBLOCK)
        request = {"words": words, "log": str(self._folder / "log"), "phases": str(phases)}
        self._server.stdin.write(json.dumps(request) + "\n")
        return int(self._server.stdout.readline())

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
        """Wait for the end; returns the exit status, -9 where the process was killed."""
        code = int(self._server.stdout.readline())
        os.close(self._phases)
        return code

    def run(self, words: list[str]) -> None:
        """Run a command that must succeed."""
        self.start(words)
        self.wait_for("the end", 1)
        code = self.end()
        assert code == 0, (self._folder / "log").read_text()[-3000:]

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    made = Server(place)
    yield made
    made.close()


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


def kill_and_go_on(server: Server, words: list[str], run: Path, plan: list[tuple[str, int]], seed: int) -> list[str]:
    """Start the command again and again, killing it shortly after the phases of `plan`; then let it end.

    Returns:
        The newest checkpoint after each kill.
    """
    chance, seen = random.Random(seed), []
    for phase, count in plan:
        process = server.start(words)
        assert server.wait_for(phase, count), (phase, count, server.end())
        time.sleep(chance.choice([0, 0.002, 0.005, 0.02]) * chance.random())
        os.kill(process, signal.SIGKILL)
        assert server.end() == -signal.SIGKILL, f"had ended before it was killed at {phase}"
        names = [path.name for path in list_checkpoints(run)]
        if seen and seen[-1]:
            assert names, "a kill left no checkpoint where there had been one"
        assert all(damage(path) is None for path in list_checkpoints(run))
        seen.append(names[-1] if names else "")
    server.run(words)
    assert [path.name for path in list_checkpoints(run)] == [f"checkpoint-{words[words.index('--max_steps') + 1]}"]
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    return seen


def test_killed_inside_a_checkpoint_write_and_after_steps_of_a_stream(server: Server, place: Path) -> None:
    """The fast one of `test_killed_ten_times`: streaming, with data workers, accumulation, over more than a pass."""
    steps = 10
    server.run(command(place, "fast-whole", True, 2, steps))
    plan = [("publish", 2), ("step", 6)]
    seen = kill_and_go_on(server, command(place, "fast", True, 2, steps), place / "fast", plan, seed=0)
    assert seen[-1] not in ("", f"checkpoint-{steps}")
    assert json.loads((place / "fast" / "run.json").read_text())["starts"] == 3
    assert_same_run(place / "fast-whole", place / "fast")


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_leads_to_the_same_weights(
    server: Server, place: Path
) -> None:
    server.run(command(place, "sound", False, 0, 8))
    words = [*command(place, "damaged", False, 0, 8), "--save_total_limit", "2"]
    process = server.start(words)
    assert server.wait_for("rotate", 3)
    os.kill(process, signal.SIGKILL)
    server.end()
    before, newest = list_checkpoints(place / "damaged")[-2:]
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    (place / "log").unlink()
    server.run(words)
    log = (place / "log").read_text()
    assert f"{newest} is damaged (model.safetensors is not as it was written)" in log
    assert (place / "damaged" / f"damaged-{newest.name}").is_dir()
    assert int(before.name.split("-")[1]) == int(newest.name.split("-")[1]) - 2
    assert_same_run(place / "sound", place / "damaged")


@pytest.mark.slow
@pytest.mark.parametrize(("streaming", "workers"), CONFIGURATIONS)
def test_killed_ten_times(server: Server, place: Path, streaming: bool, workers: int) -> None:
    """While training, looking at held-out images, writing, naming and deleting checkpoints, and writing the result."""
    name = f"{streaming}-{workers}"
    server.run(command(place, f"whole-{name}", streaming, workers, STEPS))
    chance = random.Random(name)
    plan = [(phase, chance.randint(1, 2)) for phase in ("save", "publish", "rotate", "look") * 2]
    plan.append(("step", chance.randint(1, 5)))
    chance.shuffle(plan)
    plan.append(("finish", 1))
    assert len(plan) == 10
    words = command(place, f"broken-{name}", streaming, workers, STEPS)
    seen = kill_and_go_on(server, words, place / f"broken-{name}", plan, seed=workers)
    assert len(set(seen)) >= 4  # the kills did not all fall on the same steps
    assert_same_run(place / f"whole-{name}", place / f"broken-{name}")


@pytest.mark.slow
def test_the_command_itself_killed_at_random_times(server: Server, place: Path) -> None:
    """No forks, no announcements: `python -m ladder_training`, killed at any time after training began."""
    server.run(command(place, "command-whole", False, 2, STEPS))
    words, run, chance = command(place, "command", False, 2, STEPS), place / "command", random.Random(5)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(place / "cache")}
    arguments = [sys.executable, "-m", "ladder_training", *words]
    kills = 0
    for _ in range(3):
        before = {path.name for path in list_checkpoints(run)}
        process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and before >= {path.name for path in list_checkpoints(run)}:
            time.sleep(0.01)
        time.sleep(0.4 * chance.random())
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 2
    assert subprocess.run(arguments, env=environment, capture_output=True, check=False).returncode == 0
    assert_same_run(place / "command-whole", run)
