"""Which checkpoint a run goes on from. All processes take the same one, or none starts."""

import json
import time
import uuid
from collections.abc import Set
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import PARTIAL_PREFIX
from ..models.published import TRAINER_STATE
from ..runs.agreement import all_or_none, chosen_by_first, process_count
from ..runs.checkpoints import list_checkpoints, newest_valid_checkpoint

_TRIES, _WAIT = 10, 0.5
"""A network file system may show a new file to other machines a few seconds later."""


def loader_file(rank: int) -> str:
    """Return the name of the file in a checkpoint that holds the position of one process in the data."""
    return f"loader_state_{rank}.json"


def read_loader_state(checkpoint: Path, rank: int) -> dict[str, Any]:
    """Read a process's position in the data from a checkpoint.

    Raises:
        UserError: the checkpoint does not hold it.
    """
    path = checkpoint / loader_file(rank)
    if not path.is_file():
        raise UserError(
            f"{checkpoint} holds no {path.name}: it was written by a different number of processes, or with "
            "save_only_model, so the position in the data is unknown; go on with as many processes as before, or "
            "choose another --output"
        )
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def missing_part(names: Set[str], processes: int) -> str | None:
    """Name what a checkpoint lacks to resume from it.

    A checkpoint that `save_only_model` wrote lacks everything but the model; it is complete in its way.

    Args:
        names: Its files.
        processes: Number of processes that wrote it.
    """
    one = processes == 1
    needed = {
        TRAINER_STATE: [TRAINER_STATE],
        "the model": ["model", "pytorch_model"],
        "the optimizer's state": ["optimizer", "global_step"],
        "the scheduler's state": ["scheduler"],
    }
    for rank in range(processes):
        needed[loader_file(rank)] = [loader_file(rank)]
        needed[f"the random state of process {rank}"] = ["rng_state" if one else f"rng_state_{rank}."]
    missing = [what for what, starts in needed.items() if not any(name.startswith(tuple(starts)) for name in names)]
    only_model = not any(name.startswith(("optimizer", "scheduler", "loader_state", "rng_state")) for name in names)
    if only_model and TRAINER_STATE in names:
        return None
    return missing[0] if missing else None


def agreed_checkpoint(run_dir: Path | str, rank: int) -> Path | None:
    """Let process 0 choose the newest complete checkpoint of a run; every process checks that it can resume from it.

    Args:
        run_dir: The run's folder, which all processes share.
        rank: Number of this process.

    Returns:
        The checkpoint's folder, the same in all processes, or None in all of them if there is none.

    Raises:
        UserError: the processes do not share the folder, or the checkpoint lacks the position of a process in the
            data. All processes raise the same error.
    """
    run_dir = Path(run_dir)
    if process_count() > 1:
        _check_shared(run_dir, rank)

    def newest() -> str | None:
        checkpoint = newest_valid_checkpoint(run_dir, missing_part)
        return None if checkpoint is None else checkpoint.name

    name = chosen_by_first(newest)

    def check() -> None:
        if name is None:
            if list_checkpoints(run_dir):
                raise UserError(_not_shared(run_dir, rank))
            return
        if not (run_dir / name).is_dir():
            raise UserError(_not_shared(run_dir, rank))
        read_loader_state(run_dir / name, rank)

    all_or_none(check)
    return None if name is None else run_dir / name


def _check_shared(run_dir: Path, rank: int) -> None:
    """Check that all processes see one folder: process 0 puts a file there, and the others look for it."""
    mark = run_dir / chosen_by_first(lambda: f"{PARTIAL_PREFIX}shared-{uuid.uuid4().hex}")

    def write() -> None:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError as error:
            raise UserError(f"output folder {run_dir} cannot be written to: {error}") from error

    def look() -> None:
        for _ in range(_TRIES):
            if mark.exists():
                return
            time.sleep(_WAIT)
        raise UserError(_not_shared(run_dir, rank))

    chosen_by_first(write)
    try:
        all_or_none(look)
    finally:
        if rank == 0:
            mark.unlink(missing_ok=True)


def _not_shared(run_dir: Path, rank: int) -> str:
    return (
        f"process {rank} does not see the same files in {run_dir} as process 0: all processes need one output folder, "
        "on a disk that all machines share"
    )
