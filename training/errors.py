"""Errors that a user can cause, and the nearest known name to a misspelt one.

The command line prints a `UserError` or `TrainingStopped` as one line and exits with code 2 or 3.
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, cast

_REMEDIES = {
    errno.ENOSPC: "free space (or inodes: many small files) there",
    errno.EDQUOT: "free space there, or ask for a larger quota",
    errno.EROFS: "the file system is read-only: mount it writable, or choose another folder",
    errno.EACCES: "allow this user to read and write there, or choose another folder",
    errno.EPERM: "allow this user to read and write there, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EXDEV: "it lies on another file system: choose a folder that lies on one",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "raise the limit of open files (`ulimit -n`)",
}
_TORCH_WRITE = re.compile(r"PytorchStreamWriter|inline_container\.cc.*unexpected pos|iostream error")


class UserError(ValueError):
    """A mistake in what the user gave. The message says what was wrong, where, and what to do, in one line.

    Attributes:
        shared: Whether all processes of a job raise it, so that the first one tells the user.
        same_here: Whether all processes of this machine raise it, so that the first one of the machine tells the user.
    """

    shared = False
    same_here = False


class WorkerDied(UserError, RuntimeError):
    """A data worker was ended from outside, most often for want of memory."""


class TrainingStopped(RuntimeError):
    """A run that must not go on: a collapsed level, a loss that is not finite, too many unreadable images.

    Attributes:
        kind: One word for the cause, as `run.json` records it.
        shared: As of `UserError`.
    """

    kind: ClassVar[str] = "other"
    shared = False


class NotFinite(TrainingStopped):
    """A loss or a weight is NaN or infinite."""

    kind = "not_finite"


class TooManyBadImages(TrainingStopped):
    """More images cannot be read than `max_bad_fraction` allows."""

    kind = "bad_images"


class LevelCollapsed(TrainingStopped):
    """The projections of a level are (almost) the same for all images.

    Args:
        level: Name of the level, for example "stage3.global".
        step: Optimizer steps done.
        spread: Standard deviation of the level's projections, as a fraction of a healthy one.
        limit: Least spread of a level that has not collapsed.
    """

    kind = "collapse"

    def __init__(self, level: str, step: int, spread: float, limit: float) -> None:
        super().__init__(level, step, spread, limit)
        self.level, self.step, self.spread, self.limit = level, step, spread, limit

    def __str__(self) -> str:
        return (
            f"{self.level} has collapsed at step {self.step}: the standard deviation of its projections is "
            f"{self.spread:.3f} of a healthy one (limit {self.limit}); lower the learning rate, raise base_momentum or "
            "the batch size, or set stop_on_collapse to false"
        )


class BadImageError(ValueError):
    """An image that cannot be read. The message is the reason, in one line."""


@contextlib.contextmanager
def said_once_per_machine() -> Iterator[None]:
    """An error in this block is in words, a file or the environment that all processes of a machine read alike."""
    try:
        yield
    except UserError as error:
        error.same_here = True
        raise


def system_error(error: BaseException) -> str | None:
    """Say in words what the operating system refused: the file, the reason and what to do.

    Args:
        error: Any exception. torch and safetensors have their own for a file that could not be written.

    Returns:
        One line, or None if the operating system is not the cause.
    """
    number = error.errno if isinstance(error, OSError) else None
    text = " ".join(str(error).split())
    if found := re.search(r"\(os error (\d+)\)", text):  # safetensors
        number = int(found.group(1))
    elif _TORCH_WRITE.search(text):  # the number is lost, and a full disk is the usual cause
        number = errno.ENOSPC
    elif not isinstance(error, OSError):
        return None
    if number is None:
        return text or type(error).__name__
    name = getattr(error, "filename", None)
    where = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    remedy = _REMEDIES.get(number)
    return f"{where}{os.strerror(number)}" + (f"; {remedy}" if remedy else "")


def hub_refusal(error: BaseException, page: str) -> str | None:
    """Say in words why the Hub did not give what exists there, and what to do.

    Args:
        error: What a library raised that asked the Hub for a model or a data set.
        page: Its page below the Hub's address: "user/name" or "datasets/user/name".

    Returns:
        One line, or None if the Hub gave another reason or none.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    gated = "gated dataset on the Hub" in str(error)  # all that `datasets` leaves of the Hub's answer
    answer: BaseException | None = error
    while answer is not None and not gated:
        gated = isinstance(answer, GatedRepoError)
        unknown = isinstance(answer, HfHubHTTPError) and not isinstance(answer, RepositoryNotFoundError)
        if not gated and unknown and cast(HfHubHTTPError, answer).response.status_code == 401:
            return "the Hub does not accept your access token; log in anew with `hf auth login`, or correct HF_TOKEN"
        answer = answer.__cause__
    if not gated:
        return None
    return (
        f"it is gated, and your access token may not read it; ask for access at {constants.ENDPOINT}/{page}, log in "
        "with `hf auth login`, and run the same command again"
    )


# Errors of the machine while it reads an intact file: they must end the run instead of dropping images.
_MACHINE_ERRORS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)
_NETWORK_PACKAGES = frozenset({"aiohttp", "httpcore", "httpx", "huggingface_hub", "requests", "urllib", "urllib3"})


def is_machine_error(error: BaseException) -> bool:
    """Whether an error is the fault of the machine or the network, not of the file that was read.

    Args:
        error: Raised while a file was read: no memory, no file handles, a failing disk, a lost connection ...
    """
    if isinstance(error, (ConnectionError, TimeoutError, MemoryError)):
        return True
    if any(kind.__module__.split(".")[0] in _NETWORK_PACKAGES for kind in type(error).__mro__):
        return True
    return isinstance(error, OSError) and error.errno in _MACHINE_ERRORS


def worker_death(error: BaseException, who: str = "a data worker") -> WorkerDied | None:
    """Turn torch's error of a worker that died into one that says what to do.

    torch raises it wherever the training process is when the system reports the death, also in the middle of a step.

    Args:
        error: Any exception.
        who: Which worker it was.

    Returns:
        The error, or None if no worker died.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError) or "DataLoader worker (pid" not in text:
        return None
    if isinstance(error, WorkerDied):
        return error
    return WorkerDied(
        f"{who} died ({text}). Most often the machine had no memory left (use fewer workers, a smaller batch or "
        "shuffle buffer) or /dev/shm is too small; dataloader_num_workers 0 reads in the training process and shows "
        "the cause"
    )


def near_names(name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that are most similar to an unknown one.

    Args:
        name: What was given.
        known: The names that exist.
        most: Return at most this many.
        cutoff: Least similarity, 0 to 1 (`difflib.SequenceMatcher.ratio`).

    Returns:
        The similar names, the most similar first.
    """
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def did_you_mean(near: Sequence[str]) -> str:
    """The end of a message about an unknown name: "; did you mean A or B?", or "" if no known name is near."""
    return f"; did you mean {' or '.join(near)}?" if near else ""
