"""Worker processes: each runs one endless stream of chunks, ahead of the training process.

Every worker is a `torch.utils.data.DataLoader` of its own with one process, so that the training process decides from
which worker the next chunk comes, and a worker whose shards are shorter waits without holding up the others.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..errors import TrainingStopped, UserError


class _Endless(IterableDataset):
    """Runs `start()` in the worker; errors that are the user's come as items, to be raised without a traceback."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self.start = start

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.start()
        except (UserError, TrainingStopped) as error:
            yield error


def _prepare_worker(_: int) -> None:
    """One thread per worker: the workers are the parallelism, and threads of libraries do not survive a fork."""
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(0)
    import fsspec.asyn

    fsspec.asyn.reset_lock()


class Worker:
    """One stream of chunks, in a process of its own or (number of workers 0) in this one.

    Args:
        start: Called where the stream runs; returns an endless iterator.
        index: Number of the worker, for messages.
        process: Whether to use a process.
        prefetch: Chunks made ahead.
    """

    def __init__(self, start: Callable[[], Iterator[Any]], index: int, process: bool, prefetch: int = 2) -> None:
        self.index = index
        self._process = process
        if process:
            loader = DataLoader(
                _Endless(start),
                batch_size=None,
                num_workers=1,
                prefetch_factor=prefetch,
                worker_init_fn=_prepare_worker,
                # Without its own generator a DataLoader draws from torch's global one, which would change dropout
                # and initialisation according to how often the data were (re)started.
                generator=torch.Generator().manual_seed(0),
                collate_fn=_as_is,
            )
            self._items: Iterator[Any] | None = iter(loader)
        else:
            self._items = start()

    def next(self) -> Any:
        """The next chunk.

        Raises:
            RuntimeError: The worker process died.
            UserError: As raised in the worker.
        """
        if not self._process:
            return next(self._items)
        try:
            item = next(self._items)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):  # an error raised inside the worker, not its end
                raise
            raise RuntimeError(
                f"data worker {self.index} of process {os.getpid()} died ({' '.join(str(error).split())}). Most often "
                "the machine had no memory left (use fewer workers, a smaller batch or shuffle buffer) or /dev/shm is "
                "too small; dataloader_num_workers 0 reads in the training process and shows the cause."
            ) from error
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """End the process."""
        shutdown = getattr(self._items, "_shutdown_workers", None)
        self._items = None
        if shutdown is not None:
            shutdown()


def _as_is(item: Any) -> Any:
    return item
