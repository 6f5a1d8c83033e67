"""Decisions that all processes of a run take together: one value for all of them, or the same error in all of them.

A process that decides alone leaves the others waiting in their next collective operation, until a timeout ends the job.
With one process every function here only calls what it is given.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from ..errors import TrainingStopped, UserError

Result = TypeVar("Result")
Known = (UserError, TrainingStopped)
"""Errors that a user can cause, which all processes raise together. Other errors are bugs: they end their process, and
the launcher then ends the others."""


def process_count() -> int:
    """Number of processes that work together; 1 if no process group was started."""
    return dist.get_world_size() if _together() else 1


def patient_group() -> Any:
    """A group of all processes for main memory, in which they wait for each other for days; every process calls it.

    Other groups give up after some minutes. A process that dies still ends the wait: the launcher ends the others.
    One process needs no group: None.
    """
    if process_count() == 1:
        return None
    return dist.new_group(backend="gloo", timeout=timedelta(days=7))


def chosen_by_first(choose: Callable[[], Result], group: Any = None) -> Result:
    """Let process 0 choose, and give its choice to all.

    Args:
        choose: Called in process 0 only. Its result is sent as a pickle.
        group: In which the others wait; None is the group of all processes, whose patience is some minutes.

    Raises:
        UserError: `choose` raised it; every process raises the same.
        TrainingStopped: As for UserError.
    """
    if process_count() == 1:
        return choose()
    choice: list[Any] = [_attempt(choose) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(choice, src=0, group=group)
    result, error = choice[0]
    if error is not None:
        error.shared = True
        raise error
    return cast(Result, result)


def all_or_none(work: Callable[[], Result], group: Any = None) -> Result:
    """Do the same work in every process; if it fails in one, all fail in the same way.

    Args:
        work: Called in every process. It must not wait for other processes.
        group: In which they wait for each other; None is the group of all processes, whose patience is some minutes.

    Returns:
        What `work` returned in this process.

    Raises:
        UserError: `work` raised it in some process; every process raises the one of the lowest process.
        TrainingStopped: As for UserError.
    """
    if process_count() == 1:
        return work()
    result, error = _attempt(work)
    errors: list[Any] = [None] * process_count()
    dist.all_gather_object(errors, error, group=group)
    first = next((found for found in errors if found is not None), None)
    if first is not None:
        first.shared = True
        raise first
    return cast(Result, result)


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """An error in this block is one that all processes raise, for all of them look at the same: only one prints it."""
    try:
        yield
    except Known as error:
        error.shared = True
        raise


class StepAgreement:
    """The agreement that is needed at every optimizer step; make one in all processes at the same time.

    It passes one number between the processes' main memories, so no process waits for its GPU.
    """

    def __init__(self) -> None:
        self._group: Any = None
        if process_count() > 1 and dist.is_gloo_available() and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all processes get the same answer. Every process must call it."""
        if process_count() == 1:
            return flag
        on_processor = self._group is not None or dist.get_backend() == "gloo"
        device = "cpu" if on_processor else torch.device("cuda", torch.cuda.current_device())
        together = torch.tensor([int(flag)], device=device)
        dist.all_reduce(together, op=dist.ReduceOp.MAX, group=self._group)
        return bool(together.item())

    def all_or_none(self, work: Callable[[], Result]) -> Result:
        """As the function of this name, but the errors themselves are only exchanged if there is one."""
        if process_count() == 1:
            return work()
        result, error = _attempt(work)
        if self.any(error is not None):
            all_or_none(lambda: _raise(error))
        return cast(Result, result)


def _attempt(work: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    """Return the result, or the error if it is one that a user can cause."""
    try:
        return work(), None
    except Known as error:
        return None, error


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
