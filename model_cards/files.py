"""Write files atomically."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PARTIAL = ".partial-"
# What file systems answer that lack an operation, as many network and FUSE file systems do.
_NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that readers see either the old or the complete new content.

    The content is written to a temporary file in the same folder, flushed to disk, and renamed. Where the file system
    cannot flush or has no permissions, this is skipped. An error of the operating system names the file.
    """
    try:
        _write_whole(path, content)
    except OSError as error:
        # The error of a full disk names no file, others the temporary one. What names a folder on the way says more,
        # and without a number the text says what happened, which a name would replace.
        if error.errno is not None and (error.filename is None or _PARTIAL in str(error.filename)):
            error.filename = str(path)
        raise


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"{_PARTIAL}{path.name[:100]}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            with _where_offered():
                os.fsync(file.fileno())
        with _where_offered():
            temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _where_offered() -> Iterator[None]:
    """Go on where the file system lacks the operation."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
