"""Starts `ladder` commands as forks of a process that has imported everything, and tells what each one is doing.

A line of JSON on standard input, {"words": [...], "log": FILE, "phases": PIPE, "processes": 2}, starts a command in so
many processes that train together; their numbers are printed, and their exit statuses when all have ended. While it
trains, the first one writes the name of what it begins to do to PIPE:
"step", "look", "save", "publish" (a checkpoint gets its name), "rotate" (old ones are deleted), "finish" (the run's own
files).
"""

import functools
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import datasets  # noqa: F401
import matplotlib.pyplot  # noqa: F401

import ladder_model_cards  # noqa: F401
from ladder_training.cli.entry import main
from ladder_training.pretraining import run as pretrain
from ladder_training.trainer import saving, trainer


def announce(owner: Any, name: str, phase: str, pipe: int) -> None:
    """Have a function say that it begins."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def announced(*args: Any, **kwargs: Any) -> Any:
        os.write(pipe, f"{phase}\n".encode())
        return function(*args, **kwargs)

    setattr(owner, name, announced)


def run(words: list[str], log: str, phases: str) -> int:
    """Run a command in this process, which leads a group of its own."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if os.environ.get("RANK", "0") != "0":
        return main(words)
    pipe = os.open(phases, os.O_WRONLY)
    announce(trainer.LadderTrainer, "training_step", "step", pipe)
    announce(trainer.LadderTrainer, "look", "look", pipe)
    announce(trainer.LadderTrainer, "_save_checkpoint", "save", pipe)
    announce(saving, "publish_checkpoint", "publish", pipe)
    announce(saving, "rotate_checkpoints", "rotate", pipe)
    announce(pretrain, "publish", "finish", pipe)
    return main(words)


def join(rank: int, count: int, port: int) -> None:
    """Let this process be one of several, as a launcher would."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")


def serve() -> None:
    """Fork for each line."""
    for line in sys.stdin:
        request = json.loads(line)
        count = request.pop("processes", 1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = []
        for rank in range(count):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    if count > 1:
                        join(rank, count, port)
                    code = run(**request)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        print(*children, flush=True)
        print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), flush=True)


if __name__ == "__main__":
    serve()
