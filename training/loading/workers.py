"""Worker processes: each makes an endless sequence of chunks, ahead of the training process.

Every worker is a `torch.utils.data.DataLoader` with one process. The training process can therefore choose the worker
that the next chunk comes from, and workers with more shards need not wait for those that have finished their pass.
"""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..errors import TrainingStopped, UserError, worker_death

PREFETCH = 2
"""Chunks that a worker process makes in advance."""


class _Endless(IterableDataset[Any]):
    """Calls `start()` in the worker. Errors that the user can mend are sent as items and raised by `Worker.next`."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self.start = start

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.start()
        except (UserError, TrainingStopped) as error:
            yield error


def _prepare_worker(_: int) -> None:
    """Set up a worker process.

    It uses one thread: the workers run in parallel already, and libraries' threads do not survive a fork. Ctrl-C, a
    scheduler's SIGTERM and the end of a terminal reach every process of a job: the training process decides when the
    workers end.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(0)
    import fsspec.asyn

    fsspec.asyn.reset_lock()


class Worker:
    """An endless sequence of chunks, made in a process of its own or in this one.

    Args:
        start: Called where the chunks are made; returns an endless iterator.
        index: Number of the worker, for messages.
        process: Whether to start a process.
        prefetch: Chunks that the process makes in advance.
        pin_memory: Whether a thread copies the process's chunks to pinned memory, which a GPU reads without the host.
    """

    def __init__(
        self,
        start: Callable[[], Iterator[Any]],
        index: int,
        process: bool,
        prefetch: int = PREFETCH,
        *,
        pin_memory: bool = False,
    ) -> None:
        self.index = index
        self._process = process
        if process:
            loader = DataLoader(
                _Endless(start),
                batch_size=None,
                num_workers=1,
                prefetch_factor=prefetch,
                worker_init_fn=_prepare_worker,
                # Without its own generator a DataLoader draws from torch's global one. Dropout and initialisation
                # would then depend on how often the data were restarted.
                generator=torch.Generator().manual_seed(0),
                collate_fn=_as_is,
                pin_memory=pin_memory,
            )
            self._items: Iterator[Any] = iter(loader)
        else:
            self._items = start()

    def next(self) -> Any:
        """The next chunk.

        Raises:
            WorkerDied: The worker process died.
            RuntimeError: An error that is a bug was raised in it.
            UserError: Raised in the worker.
            TrainingStopped: Raised in the worker.
        """
        if not self._process:
            return next(self._items)
        try:
            item = next(self._items)
        except RuntimeError as error:
            died = worker_death(error, f"data worker {self.index} of process {os.getpid()}")
            if died is None:  # raised by code in the worker, which is alive
                raise
            raise died from error
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Stop the process; the worker has no chunks afterwards."""
        items = self._items
        shutdown = getattr(items, "_shutdown_workers", None)
        self._items = iter(())
        if shutdown is not None:
            processes = list(getattr(items, "_workers", []))
            shutdown()
            for process in processes:
                if process.is_alive():  # it hangs in a read; it ignores SIGTERM
                    process.kill()


def _as_is(item: Any) -> Any:
    return item
