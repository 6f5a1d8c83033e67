"""What a data set was taken for, and what of it is not used: counted and named, so nothing is left out silently."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_EXAMPLES = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """One kind of thing that is not used.

    Attributes:
        what: Its kind, in the plural, for example "files with another ending".
        count: How many there are.
        examples: Names of a few.
    """

    what: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = ", ".join(self.examples)
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} {self.what}" + (f" ({named}{more})" if named else "")


@dataclass
class Account:
    """What a data set was taken for, and what is left out.

    Attributes:
        read_as: What it was taken for, for example "a folder of 300 images".
        left_out: What is not used.
        notes: Other choices that were made for the user, one sentence each.
        unused_columns: Columns of images other than the one that is used.
    """

    read_as: str = ""
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unused_columns: list[str] = field(default_factory=list)

    def add(self, what: str, names: Iterable[str]) -> None:
        """Note that things of one kind are left out; nothing if there are none."""
        left_out = counted(what, list(names))
        if left_out is not None:
            self.left_out.append(left_out)

    def lines(self, columns: bool = True) -> list[str]:
        """Every choice and everything left out, one line each.

        Args:
            columns: Whether to count columns of images that are not used. A task may use several of them.
        """
        unused = counted("columns of images; name the one to use with --image_column", self.unused_columns)
        left_out = [*self.left_out, *([unused] if unused and columns else [])]
        return [*self.notes, *(f"left out: {each}" for each in left_out)]

    def to_json(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return asdict(self)


def counted(what: str, names: Sequence[str]) -> LeftOut | None:
    """A `LeftOut` of these names, which may not be UTF-8; None if there are none."""
    return LeftOut(what, len(names), tuple(printable(name) for name in names[:_EXAMPLES])) if names else None


def printable(name: str) -> str:
    r"""A file's name as text that can be printed: bytes that are not UTF-8 are shown as \x.. ."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def attach(dataset: Any, account: Account) -> None:
    """Keep the account with a `datasets` object. Objects made from this one do not have it."""
    dataset._ladder_account = account


def tell(name: str, account: Account, columns: bool = True) -> None:
    """Log what a data set was taken for where that was a choice, and what is left out of it, in the first process.

    Args:
        name: Name of the data set.
        account: Its account.
        columns: Whether to count columns of images that are not used.
    """
    for line in account.lines(columns):
        say(name, line)


def say(name: str, line: str) -> None:
    """Log something about a data set that a user must know, in the first process."""
    if is_first_process():
        logger.warning("%s: %s", name, line)


def is_first_process() -> bool:
    """Whether this process speaks for all that a launcher started, by the launcher's environment."""
    return os.environ.get("RANK", "0") == "0"


class _PrintOnce(logging.Handler):
    """Prints each line once. Errors of the output end the command, as those of `print` do."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        line = record.getMessage()
        if line not in self._told:
            self._told.add(line)
            print(line, flush=True)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """While the block runs, print what `tell` logs, each line once, as a command does."""
    handler = _PrintOnce()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def account_of(dataset: Any) -> Account:
    """The account that `attach` kept; an empty one if there is none."""
    return getattr(dataset, "_ladder_account", None) or Account()
