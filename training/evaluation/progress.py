"""Progress bars of evaluations."""

from typing import Any


def progress(loader: Any, name: str, total: int | None = None) -> Any:
    """A progress bar on the terminal; silent where there is none and on all processes but the first."""
    from tqdm.auto import tqdm

    return tqdm(loader, desc=name, total=total, disable=None, leave=False)
