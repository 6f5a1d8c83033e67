"""Pushes to the Hub that run in one thread beside the training."""

import atexit
import concurrent.futures.thread  # registers its exit hook, which must be there before ours: the last comes first
import logging
import queue
import shutil
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, system_error
from ..loading.progress import say

if TYPE_CHECKING:
    from ladder_model_cards import PushResult

_LOOK_UP = 0.2
"""Seconds between two looks at whether a signal has come."""

logger = logging.getLogger(__name__)


def push_folder(folder: Path, repository: str, **options: Any) -> "PushResult":
    """Push a run's folder in one commit.

    Args:
        folder: The folder, as DESIGN describes it.
        repository: Name on the Hub.
        **options: As for `ladder_model_cards.push`.

    Raises:
        UserError: the folder cannot be published, or the Hub refused it; the message says what to do next.
    """
    from ladder_model_cards import CardError, PushError, push

    try:
        return push(folder, repository, **options)
    except (CardError, PushError) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"push to {repository} failed: {system_error(error)}. Nothing was sent") from error


@dataclass(eq=False)
class _Job:
    """A push that waits, runs or has ended.

    Attributes:
        what: What is pushed, for messages: "step 4".
        folder: The folder to push.
        repository: Name on the Hub.
        options: As for `ladder_model_cards.push`.
        is_copy: Whether the folder is the copy of a checkpoint, which is removed after the push.
        result: Holds the result of the push, or its error.
        ending: Once it is set, the push makes no further attempt.
    """

    what: str
    folder: Path
    repository: str
    options: dict[str, Any]
    is_copy: bool = False
    result: "Future[PushResult]" = field(default_factory=Future)
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Make the push; a failure is logged, for nobody may ever ask for the result."""
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            done = push_folder(self.folder, self.repository, ending=self.ending, **self.options)
        except Exception as error:  # whatever it is, who asks for the result gets it
            self._report(error)
            self._remove_copy()
            self.result.set_exception(error)
        else:
            self._remove_copy()
            self.result.set_result(done)

    def drop(self) -> bool:
        """Drop the push if it has not begun, and tell whether that is so."""
        dropped = self.result.cancel()
        if dropped:
            self._remove_copy()
        return dropped

    def _report(self, error: Exception) -> None:
        from ladder_model_cards.secrets import hide_secrets

        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        after = "; training goes on" if self.is_copy and not self.ending.is_set() else ""
        logger.warning("%s is not pushed: %s%s", self.what, hide_secrets(" ".join(reason.split())), after)

    def _remove_copy(self) -> None:
        if self.is_copy:
            shutil.rmtree(self.folder, ignore_errors=True)


class BackgroundPushes:
    """Pushes folders one after the other while the training goes on.

    A process that ends waits for them, except after `end`.
    """

    def __init__(self) -> None:
        self._jobs: list[_Job] = []
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> str | None:
        """What is waiting or running, "step 4", or None."""
        return _names(self._left()) or None

    def push(self, folder: Path, repository: str, **options: Any) -> "Future[PushResult]":
        """Push a folder after all pushes that were given before.

        Args:
            folder: Must not change until the push is done.
            repository: Name on the Hub.
            **options: As for `ladder_model_cards.push`.

        Returns:
            A future of the result. It holds the `UserError` of a push that failed, which is also logged.
        """
        return self._submit(_Job(str(folder), folder, repository, options))

    def push_checkpoint(self, step: int, copy: Path, repository: str, **options: Any) -> None:
        """Push the copy of a checkpoint, then remove the copy. A push that fails is logged as a warning.

        Args:
            step: Of the checkpoint, for messages.
            copy: Folder that belongs to this push alone.
            repository: Name on the Hub.
            **options: As for `ladder_model_cards.push`.
        """
        self._submit(_Job(f"step {step}", copy, repository, options, is_copy=True))

    def wait(self, asked: Callable[[], bool] = lambda: False) -> None:
        """Wait for all pushes, and say so.

        Args:
            asked: Whether the process was asked to end: then pushes that fail are not repeated.
        """
        left = self._left()
        if left:
            say(f"waiting for the push of {_names(left)} to {left[0].repository} ...")
        while left := self._left():
            if asked():
                for job in left:
                    job.ending.set()
            concurrent.futures.wait([job.result for job in left], timeout=_LOOK_UP)

    def end(self) -> None:
        """Wait for the push that runs, which makes no further attempt, and drop those that have not begun.

        Ctrl-C ends the waiting: the process can end before the push.
        """
        dropped = [job for job in self._left() if job.drop()]
        if dropped:
            say(f"not pushed any more: {_names(dropped)}")
        try:
            self.wait(asked=lambda: True)
        except KeyboardInterrupt:
            self._leave()
            raise

    def _left(self) -> list[_Job]:
        self._jobs = [job for job in self._jobs if not job.result.done()]
        return list(self._jobs)

    def _leave(self) -> None:
        """Do not wait for what runs: the Hub takes a commit whole or not at all."""
        for job in self._left():
            say(
                f"the push of {job.what} was not waited for: {job.repository} holds its earlier revision or the new "
                "one, whole"
            )
        self._jobs = []

    def _finish_at_exit(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # a forked process does not have the thread
            return
        try:
            self.wait()
        except KeyboardInterrupt:
            self._leave()

    def _submit(self, job: _Job) -> "Future[PushResult]":
        self._jobs.append(job)
        self._queue.put(job)
        if self._thread is None:
            # A daemon, so that a process that was interrupted twice need not wait for a slow upload.
            self._thread = threading.Thread(target=self._run, name="ladder-push", daemon=True)
            self._thread.start()
            _STARTED.add(self)
        return job.result

    def _run(self) -> None:
        while True:
            self._queue.get().run()


def _names(jobs: list[_Job]) -> str:
    return ", ".join(job.what for job in jobs)


_STARTED: "weakref.WeakSet[BackgroundPushes]" = weakref.WeakSet()


def _finish_all() -> None:
    for pushes in list(_STARTED):
        pushes._finish_at_exit()


# Pools of threads, which uploads use, take no more work once the interpreter shuts down, and `atexit` is called after
# that. concurrent.futures registers its own hook like this.
getattr(threading, "_register_atexit", atexit.register)(_finish_all)
