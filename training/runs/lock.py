"""One job at a time works in a folder; the others are told which process of it does."""

import contextlib
import errno
import json
import os
import socket
import sys
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import UserError, system_error
from .run_folder import LOCK, now

_HELD = {errno.EACCES, errno.EAGAIN}
_MOST_BYTES = 1 << 20
_PATIENCE = 5.0
"""Seconds in which a process that a killed one has just forked lets go of the lock."""


class FolderLock:
    """Keep other jobs out of a folder while this one works in it.

    The operating system ends the lock with the process, however that ends. Where there are no locks (some file systems,
    Windows), the file itself counts: it says which processes hold it, and they are looked for if they ran on this
    machine. Processes that this one forks do not hold the lock. The first process of a job takes the lock, the others
    join it: a job holds the folder until the last of its processes has ended.

    Args:
        folder: The folder. It is created, and removed again if it stays empty.
        work: What the process does there, for the message to others, e.g. "`ladder pretrain`".
        file: The lock's file. Default: `.lock` in the folder.
        joins: Whether the first process of this job holds the lock already.

    Raises:
        UserError: another job holds the lock, or the folder cannot be written to.
    """

    def __init__(self, folder: Path | str, work: str, file: Path | None = None, *, joins: bool = False) -> None:
        self.folder, self.work, self._joins = Path(folder), work, joins
        self.path = self.folder / LOCK if file is None else file
        self._descriptor: int | None = None
        self._has_locks = True
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
            last = False
            with contextlib.suppress(OSError):
                last = self._is_last(self._descriptor)
                # Deleted while it is still locked: who opens it before sees by its inode that it is gone.
                if last and self._has_locks:
                    self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            if last and not self._has_locks:  # Windows deletes no open file
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)
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
        line = (json.dumps(facts) + "\n").encode()
        if self._joins:
            with self.path.open("ab") as file:
                file.write(line)
            return
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # Windows has no pwrite and no pread
        os.write(self._descriptor, line)
        if self._has_locks and not _flock(self._descriptor, shared=True):  # so that other processes of the job can join
            raise self._refusal(_holders(self._descriptor))

    def _lock(self, descriptor: int) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                if _flock(descriptor, shared=self._joins):
                    return
            except OSError:
                self._has_locks = False
                if not self._joins:
                    self._refuse_if_alive(descriptor)
                return
            holders = _holders(descriptor)
            alive = [holder for holder in holders if _may_live(holder)]
            if alive or not holders or time.monotonic() > until:
                raise self._refusal(alive or holders)
            time.sleep(0.05)

    def _refuse_if_alive(self, descriptor: int) -> None:
        """Without locks of the file system: refuse unless the processes that hold it are known to be gone."""
        for holder in _holders(descriptor):
            here = holder.get("host") == socket.gethostname()
            if holder.get("pid") != os.getpid() and _may_live(holder):
                raise self._refusal([holder], "" if here else f"; if that process is gone, delete {self.path}")

    def _is_last(self, descriptor: int) -> bool:
        """Whether no other process of the job holds the lock. Without locks, its first process is the last to leave."""
        return _flock(descriptor, shared=False) if self._has_locks else not self._joins

    def _refusal(self, holders: list[dict[str, Any]], remedy: str = "") -> UserError:
        holder = holders[0] if holders else {}
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


def _flock(descriptor: int, *, shared: bool) -> bool:
    """Take or change a lock without waiting; False if another process holds it.

    Raises:
        OSError: The file system has no locks, or the system has none.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no locks of this kind")
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return False
    return True


def _holders(descriptor: int) -> list[dict[str, Any]]:
    """What the lock file says about its processes, one line each; empty if it says nothing."""
    holders = []
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        for line in os.read(descriptor, _MOST_BYTES).splitlines():
            holder = json.loads(line)
            holders += [holder] if isinstance(holder, dict) else []
    except (OSError, ValueError):
        pass  # what was read so far is all that can be said
    return holders


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether the process of a holder may be there: it ran on another machine, or is there."""
    return holder.get("host") != socket.gethostname() or _lives(holder.get("pid"))


def _lives(pid: Any) -> bool:
    """Whether a process of this machine is there; True if that cannot be told."""
    import psutil  # on Windows, os.kill(pid, 0) sends Ctrl-C

    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return False
    try:
        return psutil.pid_exists(pid)
    except OverflowError:
        return False


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
