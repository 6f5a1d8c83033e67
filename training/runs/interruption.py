"""Signals that ask the process to end: at once, or politely, when the work in hand is finished.

`ladder` ends with 130 after Ctrl-C, and with 143 after SIGTERM or SIGUSR1, by which schedulers announce the end, and
after SIGHUP, which the end of a terminal sends.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

TERMINATE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))
POLITE = (*TERMINATE, signal.SIGINT)


class Interrupted(SystemExit):
    """The process was asked to end by a signal, and has kept what it had. Uncaught, it ends the process quietly.

    Args:
        number: Number of the signal.

    Attributes:
        number: Number of the signal.
        code: Exit code: 130 after SIGINT, else 143.
        shared: Whether all processes of a job raise it, so that the first one tells the user.
        then: What to do next, if it is not to run the same command again.
    """

    code: int
    shared = False
    then: str | None = None

    def __init__(self, number: int) -> None:
        super().__init__(128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM))
        self.number = number

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Travel between processes: `SystemExit` would be made again from its exit code."""
        return type(self), (self.number,)

    def __str__(self) -> str:
        return signal.Signals(self.number).name


class StopRequest:
    """While its block runs, signals that ask the process to end are kept, and the work in hand can be finished.

    A second Ctrl-C raises KeyboardInterrupt. Signals that the process ignores stay ignored. Outside the main thread,
    which alone receives signals, the block changes nothing. The same object may be entered again inside its block.

    Attributes:
        number: Number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._depth = 0

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth > 1:
            return self
        self.number = None
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in POLITE if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.signal(number, self._receive) for number in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self.number:
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, SIGTERM, SIGUSR1 and SIGHUP raise `Interrupted`, so that what is half done is cleaned up.

    The first of them raises it; later ones change nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        if not ending:  # schedulers and impatient users send it again, while what is half done is cleaned up
            ending = True
            raise Interrupted(number)

    wanted = [number for number in TERMINATE if signal.getsignal(number) == signal.SIG_DFL]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """While the block runs, Ctrl-C is ignored: the process is about to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
