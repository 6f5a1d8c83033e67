"""One process at a time works in a folder; the others are told which one does."""

import contextlib
import errno
import json
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UserError, system_error
from .run_folder import LOCK, now

_HELD = {errno.EACCES, errno.EAGAIN}
_MOST_BYTES = 4096
_PATIENCE = 5.0
"""Seconds in which a process that a killed one has just forked lets go of the lock."""


class FolderLock:
    """Keep other processes out of a folder while this one works in it.

    The operating system ends the lock with the process, however that ends. Where the file system has no locks, the file
    itself counts: it says which process made it, and that process is looked for if it ran on this machine. Processes
    that this one forks do not hold the lock.

    Args:
        folder: The folder. It is created, and removed again if it stays empty.
        work: What the process does there, for the message to others, e.g. "`ladder pretrain`".
        file: The lock's file. Default: `.lock` in the folder.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to.
    """

    def __init__(self, folder: Path | str, work: str, file: Path | None = None) -> None:
        self.folder, self.work = Path(folder), work
        self.path = self.folder / LOCK if file is None else file
        self._descriptor: int | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            parent = self.path.parent
            self._made = [path for path in (parent, *parent.parents) if not path.exists()]
            parent.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            self._remove_empty()
            raise UserError(f"output folder {self.folder} cannot be used: {system_error(error)}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            # Deleted while it is still locked: who opens it before sees by its inode that it is gone.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
        self._remove_empty()

    def _take(self) -> None:
        while self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self.path, flags, 0o644)
            try:
                self._lock(descriptor)
                if _same_file(descriptor, self.path):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        if hasattr(os, "register_at_fork"):
            # A data worker that lives on for seconds after its run was killed must not hold the run's lock.
            lock = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _close_in_child(lock()))
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": now(), "work": self.work}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, (json.dumps(facts) + "\n").encode(), 0)

    def _lock(self, descriptor: int) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            self._refuse_if_alive(descriptor)
            return
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in _HELD:
                    self._refuse_if_alive(descriptor)
                    return
            holder = _holder(descriptor)
            dead = holder.get("host") == socket.gethostname() and not _lives(holder.get("pid"))
            if not dead or time.monotonic() > until:
                raise self._refusal(holder)
            time.sleep(0.05)

    def _refuse_if_alive(self, descriptor: int) -> None:
        """Without locks of the file system: refuse unless the process that made the file is known to be gone."""
        holder = _holder(descriptor)
        if not holder or holder.get("pid") == os.getpid():
            return
        here = holder.get("host") == socket.gethostname()
        if not here or _lives(holder.get("pid")):
            raise self._refusal(holder, "" if here else f"; if that process is gone, delete {self.path}")

    def _refusal(self, holder: dict[str, Any], remedy: str = "") -> UserError:
        known = holder and f" (process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')})"
        work = holder.get("work") or self.work
        return UserError(
            f"another {work} is at work in {self.folder}{known or ''}: wait for it, or choose another --output{remedy}"
        )

    def _remove_empty(self) -> None:
        for path in self._made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _close_in_child(lock: FolderLock | None) -> None:
    if lock is not None and lock._descriptor is not None:
        os.close(lock._descriptor)
        lock._descriptor = None


def _holder(descriptor: int) -> dict[str, Any]:
    """What the lock file says about its process; empty if it says nothing that can be read."""
    try:
        holder = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _lives(pid: Any) -> bool:
    """Whether a process of this machine is there; True if that cannot be told."""
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
