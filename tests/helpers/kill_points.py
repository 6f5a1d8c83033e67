"""Ends a process before its n-th change of the file system, as a kill would: nothing of it runs afterwards."""

import builtins
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

CHANGES = ("rename", "replace", "mkdir", "rmdir", "unlink", "remove", "fsync", "chmod", "open", "truncate", "ftruncate")
KILLED, FAILED = 9, 1


Before = Callable[[str, Any], None]
"""Called with the name of an operation and its first argument."""


def _watch(before: Before) -> None:
    """Call `before` with the name of each operation that changes the file system. It cannot be undone: fork first."""

    def watched(owner: Any, name: str, changes: Callable[..., bool]) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if changes(*args, **kwargs):
                before(name, args[0])
            return function(*args, **kwargs)

        setattr(owner, name, call)

    def writes(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> bool:
        return bool(set(mode) & set("wax+"))

    for name in CHANGES:
        creates = (lambda path, flags, *a, **k: bool(flags & os.O_CREAT)) if name == "open" else lambda *a, **k: True
        watched(os, name, creates)
    watched(io, "open", writes)
    watched(builtins, "open", writes)


def forked(work: Callable[[], Any], before: Before | None = None) -> int:
    """Do the work in a fork of this process.

    Args:
        work: What to do.
        before: Called before each change of the file system.

    Returns:
        The exit code: 0, the work's own if it is a number, or `FAILED` after an exception, which is printed.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = FAILED
        logging.getLogger().handlers.clear()  # pytest's, which would keep warnings from standard error
        try:
            if before is not None:
                _watch(before)
            result = work()
            code = result if isinstance(result, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_each_change(work: Callable[[], Any], every: int = 1, start: int = 0) -> Iterator[int]:
    """Do the work again and again, and kill it before its first, second, third ... change.

    Yields:
        The number of the change before which it was killed; ends when the work comes to its end. What the caller does
        between two of them makes the start of the next one.
    """
    number = start
    while True:
        code = forked(work, _killing(number))
        if code == 0:
            return
        assert code == KILLED, f"failed with {code} before change {number}"
        yield number
        number += every


def _killing(number: int) -> Before:
    left = [number]

    def before(name: str, path: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(KILLED)

    return before


def refusing(number: int, names: tuple[str, ...] = CHANGES, after: int = 0) -> Before:
    """Let the file system refuse operations.

    Args:
        number: The error, for example `errno.ENOSPC`.
        names: The operations that fail.
        after: So many of them succeed first.
    """
    left = [after]

    def before(name: str, path: Any) -> None:
        if name in names:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number), path if isinstance(path, str) else None)

    return before
