"""What everything that may take more than a few seconds says of itself: a bar on a terminal, else a line on stderr."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

_SECONDS = 3.0


def progress(loader: Any, name: str, total: int | None = None) -> Any:
    """Wrap an iterable in a progress bar, which is shown on a terminal or in a notebook, after a second.

    Elsewhere, as in the log of a job, one line says how far the work is when it has taken three seconds.

    Args:
        loader: The iterable; None for a bar that is moved by `update`.
        name: Shown beside the bar.
        total: Number of items, if `len(loader)` does not give it.
    """
    from tqdm.auto import tqdm

    first = os.environ.get("RANK", "0") == "0"  # of several processes on one terminal, one draws
    bar = tqdm(loader, desc=name, total=total, disable=None if first else True, leave=False, delay=1)
    if not bar.disable:
        return bar
    if loader is None:
        return _SaidOnce(name, total)
    return _items(loader, _SaidOnce(name, _length(loader) if total is None else total))


def say(line: str) -> None:
    """Say what is done now, as one line on stderr; of several processes, the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except TypeError:  # a DataLoader over a stream raises it in its `__len__`
        return None


class _SaidOnce:
    """A line once that the work has taken some seconds; it is moved as a bar of tqdm is.

    Args:
        name: Of the work.
        total: Number of items; None if unknown.

    Attributes:
        n: Items that are done.
        initial: Those of them that were done before.
    """

    def __init__(self, name: str, total: int | None) -> None:
        self.n, self.initial = 0, 0
        self._name, self._total = name, total
        self._start, self._said = time.monotonic(), False

    def __enter__(self) -> "_SaidOnce":
        return self

    def __exit__(self, *exc: object) -> None: ...

    def update(self, count: int = 1) -> None:
        """Count items that are done now."""
        self.n += count
        self.tell()

    def tell(self) -> None:
        """Say how far the work is, if it is time to and was not said."""
        seconds = time.monotonic() - self._start
        if self._said or seconds < _SECONDS:
            return
        self._said = True
        of, rest, made = "", "", self.n - self.initial
        if self._total is not None:
            of = f" of {self._total:,}"
            rest = f", about {seconds / made * (self._total - self.n):,.0f} s more" if made else ""
        say(f"{self._name}: {self.n:,}{of} done after {seconds:.0f} s{rest} ...")


def _items(loader: Any, said: _SaidOnce) -> Iterator[Any]:
    """The items of an iterable; before each the work is told."""
    for item in loader:
        said.tell()
        yield item
        said.n += 1
