"""Files of cards are named in errors as those of runs are: `write_whole` and `write_bytes` follow one rule."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder_model_cards.files import write_whole
from ladder_training.files import write_bytes


@pytest.mark.parametrize("write", [write_whole, write_bytes])
def test_what_could_not_be_written_is_named(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists") as refused:
        write(tmp_path / "file" / "card.md", b"")
    assert Path(refused.value.filename) == tmp_path / "file", "what is in the way, not what could not be made in it"

    def failing(error: OSError) -> Callable[..., None]:
        def make(prefix: str, dir: Path) -> None:
            if error.filename is not None:
                error.filename = str(dir / f"{prefix}x")
            raise error

        return make

    target = tmp_path / "card.md"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(tempfile, "mkstemp", failing(full))
    with pytest.raises(OSError, match="No space left"):
        write(target, b"")
    assert full.filename == str(target), "the system names no file"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "temporary")
    monkeypatch.setattr(tempfile, "mkstemp", failing(denied))
    with pytest.raises(PermissionError):
        write(target, b"")
    assert denied.filename == str(target), "the temporary file has a name that nobody knows"
    odd = OSError("the disk is on fire")
    monkeypatch.setattr(tempfile, "mkstemp", failing(odd))
    with pytest.raises(OSError, match=r"^the disk is on fire$"):
        write(target, b"")
