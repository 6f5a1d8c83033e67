"""A run that is asked to end finishes its step, writes a checkpoint, and the same command reaches the same weights."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.kill_client import Server, assert_same_run, command, make_place
from ladder_training.runs.checkpoints import damage, list_checkpoints
from ladder_training.trainer.resuming import missing_part

MOST_SECONDS = 20
"""From the signal to the end of the process, on a machine that is busy with other things."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("interruption"))


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    made = Server(place)
    yield made
    made.close()


def status(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def interrupt(
    server: Server, words: list[str], run: Path, moment: tuple[str, int, int, float], processes: int = 1, rank: int = 0
) -> None:
    """Start the command, send a signal to one of its processes, and check how all of them ended.

    Args:
        moment: Phase, which of its beginnings, signal, and seconds to wait after that.
    """
    phase, count, number, wait = moment
    server.start(words, processes)
    assert server.wait_for(phase, count), (phase, count, server.end())
    time.sleep(wait)
    os.killpg(server.processes[rank], number)  # data workers get it too, as in a scheduler's job
    began = time.monotonic()
    code = server.end()
    assert time.monotonic() - began < MOST_SECONDS
    if code == 0:  # it came when everything was written
        assert status(run)["status"] == "finished"
        return
    assert code == (130 if number == signal.SIGINT else 143), (phase, count)
    record = status(run)
    assert (record["status"], record["reason"], record["finished"]) == (
        "interrupted",
        signal.Signals(number).name,
        None,
    )
    newest = list_checkpoints(run)[-1]
    assert damage(newest, missing_part) is None
    assert newest.name == f"checkpoint-{record['steps']}"
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_sigterm_writes_a_checkpoint_of_the_last_step_and_the_same_command_goes_on(server: Server, place: Path) -> None:
    """At a step that would not be saved, in a look, in the write of a checkpoint, and in the last files."""
    steps = 10
    server.run(command(place, "whole", True, 2, steps))
    words, run = command(place, "broken", True, 2, steps), place / "broken"
    interrupt(server, words, run, ("step", 5, signal.SIGTERM, 0.0))
    assert status(run)["steps"] == 3  # two batches for each step
    interrupt(server, words, run, ("look", 1, signal.SIGINT, 0.0))
    interrupt(server, words, run, ("save", 1, signal.SIGUSR1, 0.0))
    interrupt(server, words, run, ("finish", 1, signal.SIGTERM, 0.0))
    assert status(run)["steps"] == steps
    server.run(words)
    assert status(run)["status"] == "finished"
    assert_same_run(place / "whole", run)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("streaming", "workers"), [(False, 0), (True, 2)], ids=["map-0-workers", "stream-2-workers"])
def test_sigterm_at_random_moments(server: Server, place: Path, streaming: bool, workers: int, processes: int) -> None:
    """Five moments in each of four ways to train: steps, looks, checkpoints, the publication; one process gets it."""
    steps, name = 16, f"{streaming}-{workers}-{processes}"
    server.run(command(place, f"whole-{name}", streaming, workers, steps), processes)
    words, run = command(place, f"random-{name}", streaming, workers, steps), place / f"random-{name}"
    chance = random.Random(name)
    phases = ["step", "look", "save", "publish"]
    chance.shuffle(phases)
    reached = []
    for phase in [*phases, "finish"]:
        moment = (phase, chance.randint(1, 4 if phase == "step" else 1), signal.SIGTERM, 0.02 * chance.random())
        interrupt(server, words, run, moment, processes, chance.randrange(processes))
        reached.append(status(run)["steps"])
    assert reached == sorted(reached)
    assert reached[0] < steps
    server.run(words, processes)
    assert status(run)["status"] == "finished"
    assert_same_run(place / f"whole-{name}", run)
