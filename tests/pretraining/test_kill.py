"""A training process killed at any moment goes on, by the same command, to the same weights bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.kill_client import STEPS, Server, assert_same_run, command, make_place
from ladder_training.runs.checkpoints import damage, list_checkpoints

CONFIGURATIONS = [
    pytest.param(streaming, workers, id=f"{'stream' if streaming else 'map'}-{workers}-workers")
    for streaming in (False, True)
    for workers in (0, 2)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    made = Server(place)
    yield made
    made.close()


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
