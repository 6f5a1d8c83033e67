"""Progress bars of everything that may take more than a few seconds."""

from typing import Any


def progress(loader: Any, name: str, total: int | None = None) -> Any:
    """Wrap an iterable in a progress bar, which is shown only on a terminal or in a notebook, after a second.

    Args:
        loader: The iterable; None for a bar that is moved by `update`.
        name: Shown beside the bar.
        total: Number of items, if `len(loader)` does not give it.
    """
    from tqdm.auto import tqdm

    return tqdm(loader, desc=name, total=total, disable=None, leave=False, delay=1)
