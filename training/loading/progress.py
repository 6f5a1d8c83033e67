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

    bar = tqdm(loader, desc=name, total=total, disable=None, leave=False, delay=1)
    if not bar.disable or loader is None:
        return bar
    return _said_once(loader, name, _length(loader) if total is None else total)


def say(line: str) -> None:
    """Say what is done now, as one line on stderr; of several processes, the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except TypeError:  # a DataLoader over a stream raises it in its `__len__`
        return None


def _said_once(loader: Any, name: str, total: int | None) -> Iterator[Any]:
    """The items of an iterable, and a line once that has taken some seconds."""
    start, said = time.monotonic(), False
    for done, item in enumerate(loader):
        seconds = time.monotonic() - start
        if not said and seconds >= _SECONDS:
            said = True
            of, rest = "", ""
            if total is not None:
                of = f" of {total:,}"
                rest = f", about {seconds / done * (total - done):,.0f} s more" if done else ""
            say(f"{name}: {done:,}{of} done after {seconds:.0f} s{rest} ...")
        yield item
