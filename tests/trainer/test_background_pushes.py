"""Pushes beside the training: one at a time, in order; the copy of a checkpoint is removed, a failure is a warning."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from ladder_training.errors import UserError
from ladder_training.trainer import background_pushes
from ladder_training.trainer.background_pushes import BackgroundPushes


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Pushes wait for this event; `gate.pushed` lists what was pushed. A tag "bad" is refused."""
    event = threading.Event()
    event.pushed = []

    def push_folder(folder: Path, repository: str, **options: Any) -> str:
        assert event.wait(10)
        if options.get("tag") == "bad":
            raise UserError("the Hub refused it")
        event.pushed.append((folder.name, repository, folder.is_dir()))
        return folder.name

    monkeypatch.setattr(background_pushes, "push_folder", push_folder)
    return event


def test_pushes_are_made_in_order_and_copies_removed(gate: threading.Event, tmp_path: Path) -> None:
    pushes = BackgroundPushes()
    assert pushes.in_progress is None and not pushes.busy
    for name in ("first", "second", "run"):
        (tmp_path / name).mkdir()
    pushes.push_checkpoint(tmp_path / "first", "user/net")
    pushes.push_checkpoint(tmp_path / "second", "user/net")
    last = pushes.push(tmp_path / "run", "user/net")
    assert pushes.busy and gate.pushed == [] and len(pushes.in_progress.jobs) == 2
    gate.set()
    assert last.result(timeout=10) == "run"
    assert not pushes.busy
    assert gate.pushed == [("first", "user/net", True), ("second", "user/net", True), ("run", "user/net", True)]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    earlier = pushes.in_progress
    pushes.push_checkpoint(tmp_path / "run", "user/net")
    assert pushes.in_progress is not earlier and len(pushes.in_progress.jobs) == 1
    pushes.in_progress.wait_until_done()


def test_a_failed_checkpoint_is_a_warning_and_a_failed_push_an_error(
    gate: threading.Event, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pushes = BackgroundPushes()
    gate.set()
    (tmp_path / "copy").mkdir()
    with caplog.at_level(logging.WARNING):
        pushes.push_checkpoint(tmp_path / "copy", "user/net", tag="bad")
        pushes.in_progress.wait_until_done()
    assert [record.getMessage() for record in caplog.records] == ["the Hub refused it; training goes on"]
    assert not (tmp_path / "copy").exists()
    with pytest.raises(UserError, match="the Hub refused it"):
        pushes.push(tmp_path, "user/net", tag="bad").result(timeout=10)
    assert tmp_path.is_dir()
