"""`ladder compare`: methods on the same budget, data order and seeds, evaluated alike, in one table with intervals.

options      what the command takes
plan         methods, evaluations and the recipe of every run
cells        the small JSON files that hold what was measured, and what each of them depends on
work         pretraining, evaluation and gradient shares of one method and seed
stability    short runs over learning rates and batch sizes
schedule     what is run when, in this process or in several
statistics   means, paired differences, steps to reach an accuracy
summary      from cells to the rows of the table; `report` writes them, `figures` draws them
"""

from typing import Any

__all__ = ["compare_command"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .command import compare_command

    return compare_command
