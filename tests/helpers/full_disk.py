"""A disk that is full: no file that this package writes at once can be finished."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ladder_training import files


def _full(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system names no file here


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """In this block the disk is full."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "fsync", _full)
        yield
