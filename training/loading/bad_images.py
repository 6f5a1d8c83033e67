"""Images that cannot be read: distinguished from programming errors, listed in a file, counted, and limited.

An example whose image cannot be decoded is skipped: the batch takes the next readable example of the deterministic
order. The order of the readable examples is therefore that of all examples without the unreadable ones; of a stream
that several workers read, the order of each worker's examples is. Positions are counted whether readable or not, so
resuming does not need to know which ones were unreadable.
"""

import contextlib
import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import BadImageError, TooManyBadImages, UserError, is_machine_error
from ..files import fsync_open

# After few images, one unreadable image is a large share. Shares are therefore taken of at least this many images, or
# of the whole data set, and a share must exceed the limit by this many standard deviations, so that a cluster of
# unreadable images does not end a run.
_SMALLEST_SAMPLE = 1000
_DEVIATIONS = 3


@dataclass(frozen=True)
class BadImage:
    """One unreadable image.

    Attributes:
        source: Data set, folder or shard that holds it.
        key: File, WebDataset key or row.
        reason: Why it cannot be read, in one line.
    """

    source: str
    key: str
    reason: str


def is_bad_image(error: BaseException) -> bool:
    """Whether an error that was raised while an image was read or transformed is the image's fault.

    It is for `BadImageError` and for what PIL and the file system raise for a damaged, missing or forbidden file. It is
    not for errors of the machine (no memory, no file handles, a failing disk or network) and for programming errors
    (TypeError, IndexError, ValueError ...): skipping images because of those would hide their cause.
    """
    from PIL import Image

    if is_machine_error(error):
        return False
    if isinstance(error, OSError):  # PIL.UnidentifiedImageError and "image file is truncated" are OSErrors, errno None
        return True
    # PIL raises SyntaxError for a broken PNG chunk. So does a broken import, but that error has a file name.
    broken_png = isinstance(error, SyntaxError) and error.filename is None
    return broken_png or isinstance(error, (BadImageError, EOFError, Image.DecompressionBombError))


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's message on one line of at most `limit` characters; the name of its type if it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


class BadImageFile:
    """`bad_images.jsonl`: one JSON object per unreadable image (source, key, reason), each image once.

    Several processes may write to the file: before a process appends lines, it locks the file and reads the lines of
    the others. An incomplete last line, which a killed process leaves, is removed.

    Args:
        path: The file; None keeps the list in memory only.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self._known: set[tuple[str, str]] = set()
        self._read_until = 0

    def add(self, images: list[BadImage]) -> None:
        """Append those of `images` that are not in the file yet."""
        new = {(image.source, image.key): image for image in images if (image.source, image.key) not in self._known}
        if not new:
            return
        if self.path is not None:
            self._append(self.path, new)
        self._known.update(new)

    def _append(self, path: Path, new: dict[tuple[str, str], BadImage]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _lock(file)
            file.seek(self._read_until)
            seen = file.read()
            whole = seen.rfind(b"\n") + 1
            if whole < len(seen):
                file.truncate(self._read_until + whole)
            for line in seen[:whole].splitlines():
                record = json.loads(line)
                self._known.add((record["source"], record["key"]))
            lines = "".join(
                json.dumps(asdict(image), ensure_ascii=False) + "\n"
                for name, image in new.items()
                if name not in self._known
            )
            file.seek(0, os.SEEK_END)
            file.write(lines.encode())
            file.flush()
            fsync_open(file.fileno(), path)
            self._read_until = file.tell()

    def __len__(self) -> int:
        return len(self._known)


def _lock(file: IO[Any]) -> None:
    """Lock a file until it is closed, if the system can; without a lock two processes may list an image twice."""
    if sys.platform == "win32":
        return
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)


LARGER_SHARE_GOES_ON = "mend them, or the same command with a larger --max_bad_fraction goes on from here"
"""The remedy of commands that keep what they have made."""


class BadImageCount:
    """Count images and unreadable images, list the unreadable ones, and stop the run if there are too many.

    Args:
        maximum: Largest share of unreadable images, 0 to 1.
        file: File that lists them; None writes no list.
        size: Number of images in the data set; None if unknown.
        alone: Whether this process reads the whole data set; every pass then meets the same unreadable images.
        remedy: What the user can do about too many, the end of the message.

    Attributes:
        seen: Images read.
        bad: Images of those that are unreadable.

    Raises:
        UserError: `maximum` is not in [0, 1].
    """

    def __init__(
        self,
        maximum: float,
        file: str | os.PathLike[str] | None = None,
        size: int | None = None,
        alone: bool = True,
        remedy: str = "",
    ) -> None:
        if not 0 <= maximum <= 1:
            raise UserError(f"max_bad_fraction is a share between 0 and 1, not {maximum}")
        self.maximum = maximum
        self.file = BadImageFile(file)
        self.seen = 0
        self.bad = 0
        self._remedy = f"; {remedy}" if remedy else ""
        self._pass_size = size if alone else None
        self._sample = _SMALLEST_SAMPLE if size is None else min(size, _SMALLEST_SAMPLE)
        self._examples: list[BadImage] = []

    def record(self, images: list[BadImage]) -> None:
        """List unreadable images in the file; `count` counts them once their positions are consumed."""
        if not images:
            return
        from ladder_model_cards.secrets import hide_secrets

        # Keys and sources are paths or URLs, and a URL may hold a password.
        images = [BadImage(*(hide_secrets(text) for text in (bad.source, bad.key, bad.reason))) for bad in images]
        self._examples = (self._examples + images)[:3]
        self.file.add(images)

    def count(self, seen: int, bad: int) -> None:
        """Add to the counts.

        Args:
            seen: Positions that were consumed.
            bad: How many of them are unreadable.

        Raises:
            TooManyBadImages: More than the share `maximum` of the images is unreadable: three standard deviations more
                among the images seen (at least 1,000, or the whole data set if that is smaller), or any more in whole
                passes over the data set.
        """
        self.seen += seen
        self.bad += bad
        if bad:
            self._check()

    def finish(self) -> None:
        """Compare the share without any tolerance, now that the whole data set has been counted once.

        Raises:
            TooManyBadImages: More than the share `maximum` of all images is unreadable.
        """
        self._pass_size = self.seen
        self._check()

    def _check(self) -> None:
        if self.bad > self._allowed():
            listed = f"they are listed in {self.file.path}" if self.file.path else f"for example {self._name_some(3)}"
            raise TooManyBadImages(
                f"{self.bad} of the {self.seen} images read so far cannot be read, more than the "
                f"{self.maximum:.3g} that max_bad_fraction allows: {listed}{self.examples() if self.file.path else ''}"
                f"{self._remedy}"
            )

    def examples(self) -> str:
        """The end of a message: the first unreadable image and its reason; "" if there is none."""
        return "; for example " + self._name_some(1) if self._examples else ""

    def _allowed(self) -> float:
        expected = self.maximum * max(self.seen, self._sample)
        allowed = expected + _DEVIATIONS * math.sqrt(expected)
        if self._pass_size:
            # The 1e-9 absorbs the rounding of products such as 0.07 * 100.
            allowed = min(allowed, self.maximum * math.ceil(self.seen / self._pass_size) * self._pass_size + 1e-9)
        return allowed

    def _name_some(self, most: int) -> str:
        return "; ".join(f"{image.source} {image.key}: {image.reason}" for image in self._examples[:most])
