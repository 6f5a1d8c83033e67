"""Images that cannot be read: told from programming errors, listed in a file, counted, and limited.

The rule. An example whose image cannot be decoded is passed over: the batch takes the next good example of the
deterministic order, so the order of the good ones is the order of all with the bad ones taken out. Positions are
counted whether good or bad, so resuming needs no knowledge of which ones were bad.
"""

import errno
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import TrainingStopped, UserError

# What a machine in trouble raises while it reads a good file: these must end the run, not drop images.
_MACHINE_ERRORS = {
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

# With few images seen, one bad image is a large share: shares are taken of at least this many (or of the whole set),
# and a share must be passed by this many standard deviations, so that a cluster of bad images does not end a run.
_SMALLEST_SAMPLE = 1000
_DEVIATIONS = 3


@dataclass(frozen=True)
class BadImage:
    """One unreadable image.

    Attributes:
        source: Data set, folder or shard it came from.
        key: File, WebDataset key or row.
        reason: One line.
    """

    source: str
    key: str
    reason: str


def is_bad_image(error: BaseException) -> bool:
    """Whether `error`, raised while an image was read or transformed, is the image's fault.

    `BadImageError` is, and what PIL and the file system raise for a damaged, missing or forbidden file. A machine in
    trouble (no memory, no file handles, a failing disk or network) and programming errors (TypeError, IndexError,
    ValueError ...) are not: dropping images silently for those would hide the fault.
    """
    from PIL import Image

    from ..errors import BadImageError

    if isinstance(error, (ConnectionError, TimeoutError)):
        return False
    if isinstance(error, OSError):  # PIL.UnidentifiedImageError and "image file is truncated" are OSErrors, errno None
        return error.errno not in _MACHINE_ERRORS
    # PIL raises SyntaxError for a broken PNG chunk, but so does a broken import: only PIL's carries no file name.
    broken_png = isinstance(error, SyntaxError) and error.filename is None
    return broken_png or isinstance(error, (BadImageError, EOFError, Image.DecompressionBombError))


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text on one line, at most `limit` characters; its type where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


class BadImageFile:
    """`bad_images.jsonl`: one JSON object per unreadable image (source, key, reason), each image once.

    Several processes may share the file: a line is written under a file lock, after the lines of the others have been
    read. A line cut short by a kill is removed before the next one is written.

    Args:
        path: The file; None keeps the list in memory only.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        self.path = None if path is None else Path(path)
        self._known: set[tuple[str, str]] = set()
        self._read_until = 0

    def add(self, images: list[BadImage]) -> None:
        """Append those of `images` that are not in the file yet."""
        new = {(image.source, image.key): image for image in images if (image.source, image.key) not in self._known}
        if not new:
            return
        if self.path is not None:
            self._append(new)
        self._known.update(new)

    def _append(self, new: dict[tuple[str, str], BadImage]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
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
            os.fsync(file.fileno())
            self._read_until = file.tell()

    def __len__(self) -> int:
        return len(self._known)


def _lock(file: object) -> None:
    """Lock until closed, where the system can: without a lock two processes may name one image twice, no more."""
    try:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    except (ImportError, OSError):
        return


class BadImageCount:
    """Counts what was read and what was bad, lists the bad ones, and stops the run past the limit.

    Args:
        maximum: Largest share of unreadable images, 0 to 1.
        file: Where they are listed.
        size: Number of images in the data set, None if not known.
        alone: This process reads the whole data set, so in whole passes it meets every bad image equally often.

    Raises:
        UserError: `maximum` is not in [0, 1].
    """

    def __init__(
        self, maximum: float, file: str | os.PathLike | None = None, size: int | None = None, alone: bool = True
    ) -> None:
        if not 0 <= maximum <= 1:
            raise UserError(f"max_bad_fraction is a share between 0 and 1, not {maximum}")
        self.maximum = maximum
        self.file = BadImageFile(file)
        self.seen = 0
        self.bad = 0
        self._pass_size = size if alone else None
        self._sample = _SMALLEST_SAMPLE if size is None else min(size, _SMALLEST_SAMPLE)
        self._examples: list[BadImage] = []

    def found(self, images: list[BadImage]) -> None:
        """List `images` in the file."""
        self._examples = (self._examples + images)[:3]
        self.file.add(images)

    def count(self, seen: int, bad: int) -> None:
        """Count consumed positions, and those of them that were bad.

        Raises:
            TrainingStopped: Clearly more than `maximum` of the images seen (of at least 1,000, or of the whole set if
                that is smaller) cannot be read, or more than that share of whole passes over the data set.
        """
        self.seen += seen
        self.bad += bad
        if bad and self.bad > self._allowed():
            listed = f"they are listed in {self.file.path}" if self.file.path else f"for example {self._name_some()}"
            raise TrainingStopped(
                f"{self.bad} of the {self.seen} images read so far cannot be read, more than the "
                f"{self.maximum:.3g} that max_bad_fraction allows: {listed}"
            )

    def _allowed(self) -> float:
        expected = self.maximum * max(self.seen, self._sample)
        allowed = expected + _DEVIATIONS * math.sqrt(expected)
        if self._pass_size:
            # Small slack for the rounding of products such as 0.07 * 100.
            allowed = min(allowed, self.maximum * math.ceil(self.seen / self._pass_size) * self._pass_size + 1e-9)
        return allowed

    def _name_some(self) -> str:
        return "; ".join(f"{image.source} {image.key}: {image.reason}" for image in self._examples)
