"""Starts `ladder` commands as forks of a process that has imported everything, and tells what each one is doing.

A line of JSON on standard input, {"words": [...], "log": FILE, "phases": PIPE}, starts a command; its process number is
printed, and its exit status when it has ended. While it trains it writes the name of what it begins to do to PIPE:
"step", "look", "save", "publish" (a checkpoint gets its name), "rotate" (old ones are deleted), "finish" (the run's own
files).
"""

import functools
import json
import os
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
    pipe = os.open(phases, os.O_WRONLY)
    announce(trainer.LadderTrainer, "training_step", "step", pipe)
    announce(trainer.LadderTrainer, "look", "look", pipe)
    announce(trainer.LadderTrainer, "_save_checkpoint", "save", pipe)
    announce(saving, "publish_checkpoint", "publish", pipe)
    announce(saving, "rotate_checkpoints", "rotate", pipe)
    announce(pretrain, "publish", "finish", pipe)
    return main(words)


def serve() -> None:
    """Fork for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = run(**json.loads(line))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
