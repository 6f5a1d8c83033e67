"""Progress bars of evaluations."""

from typing import Any


def progress(loader: Any, name: str, total: int | None = None) -> Any:
    """Wrap an iterable in a progress bar, which is shown only on a terminal.

    Args:
        loader: The iterable.
        name: Shown beside the bar.
        total: Number of items, if `len(loader)` does not give it.
    """
    from tqdm.auto import tqdm

    return tqdm(loader, desc=name, total=total, disable=None, leave=False)
