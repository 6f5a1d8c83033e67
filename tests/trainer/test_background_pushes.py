"""Pushes beside the training: one at a time, in order; the copy of a checkpoint is removed, a failure is a warning."""

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ladder_training.errors import UserError
from ladder_training.trainer import background_pushes
from ladder_training.trainer.background_pushes import BackgroundPushes


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Pushes wait for this event; `gate.pushed` lists what was pushed. A tag "bad" is refused, "bug" is a bug.

    `gate.begun` counts the pushes that have begun.
    """
    event = threading.Event()
    event.pushed, event.endings, event.begun = [], [], threading.Semaphore(0)

    def push_folder(folder: Path, repository: str, *, ending: threading.Event, **options: Any) -> str:
        event.begun.release()
        assert event.wait(10)
        event.endings.append(ending.is_set())
        if options.get("tag") == "bad":
            raise UserError("the Hub refused it")
        if options.get("tag") == "bug":
            raise RuntimeError("cannot do\nthat with hf_tokenOfTheTests0123456789")
        event.pushed.append((folder.name, repository, folder.is_dir()))
        return folder.name

    monkeypatch.setattr(background_pushes, "push_folder", push_folder)
    return event


def test_pushes_are_made_in_order_and_copies_removed(
    gate: threading.Event, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes = BackgroundPushes()
    assert pushes.busy is None
    pushes.wait()
    assert capsys.readouterr().err == "", "nothing to wait for"
    for name in ("first", "second", "run"):
        (tmp_path / name).mkdir()
    pushes.push_checkpoint(2, tmp_path / "first", "user/net")
    pushes.push_checkpoint(4, tmp_path / "second", "user/net")
    last = pushes.push(tmp_path / "run", "user/net")
    assert pushes.busy == f"step 2, step 4, {tmp_path / 'run'}" and gate.pushed == []
    threading.Timer(0.1, gate.set).start()
    pushes.wait()
    assert last.result(timeout=0) == "run" and pushes.busy is None
    assert gate.pushed == [("first", "user/net", True), ("second", "user/net", True), ("run", "user/net", True)]
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and gate.endings == [False] * 3
    waited = f"waiting for the push of step 2, step 4, {tmp_path / 'run'} to user/net ...\n"
    assert capsys.readouterr().err == waited


@pytest.mark.parametrize(
    ("tag", "said"),
    [("bad", "the Hub refused it"), ("bug", "RuntimeError: cannot do that with ***")],
)
def test_a_push_that_fails_is_never_silent(
    tag: str, said: str, gate: threading.Event, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pushes = BackgroundPushes()
    gate.set()
    (tmp_path / "copy").mkdir()
    with caplog.at_level(logging.WARNING):
        pushes.push_checkpoint(6, tmp_path / "copy", "user/net", tag=tag)
        pushes.wait()
        assert not (tmp_path / "copy").exists()
        with pytest.raises((UserError, RuntimeError), match=said.split()[-2]):
            pushes.push(tmp_path, "user/net", tag=tag).result(timeout=10)
    assert [record.getMessage() for record in caplog.records] == [
        f"step 6 is not pushed: {said}; training goes on",
        f"{tmp_path} is not pushed: {said}",
    ]
    assert tmp_path.is_dir()


def test_at_the_end_the_push_that_runs_is_waited_for_and_others_dropped(
    gate: threading.Event, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes = BackgroundPushes()
    gate.set()
    pushes.push(tmp_path, "user/net").result(timeout=10)
    assert gate.begun.acquire(timeout=10)
    gate.clear()
    for step in (2, 4):
        (tmp_path / f"copy-{step}").mkdir()
        pushes.push_checkpoint(step, tmp_path / f"copy-{step}", "user/net")
    assert gate.begun.acquire(timeout=10)
    threading.Timer(0.5, gate.set).start()
    pushes.end()
    assert [name for name, _, _ in gate.pushed[1:]] == ["copy-2"] and gate.endings == [False, True]
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ("not pushed any more: step 4\nwaiting for the push of step 2 to user/net ...\n")


def test_ctrl_c_ends_the_waiting(
    gate: threading.Event,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    pushes = BackgroundPushes()
    pushes.push_checkpoint(2, tmp_path / "copy", "user/net")
    assert gate.begun.acquire(timeout=10)
    monkeypatch.setattr("concurrent.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pushes.end()
    assert capsys.readouterr().err.splitlines()[1:] == [
        "the push of step 2 was not waited for: user/net holds its earlier revision or the new one, whole"
    ]
    assert pushes.busy is None, "the end of the process does not wait for it either"
    gate.set()


SCRIPT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ladder_training.trainer import background_pushes

def push_folder(folder, repository, *, ending):
    time.sleep(1)
    with ThreadPoolExecutor(2) as pool:  # as uploads of several files do
        print("sent", *pool.map(str, range(2)), flush=True)

background_pushes.push_folder = push_folder
background_pushes.BackgroundPushes().push(Path("run"), "user/net")
print("end of the script", flush=True)
"""


def test_a_script_that_ends_waits_for_its_pushes() -> None:
    """The pools of threads that uploads use took no more work then: the push failed, and nobody was told."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "end of the script\nsent 0 1\n"
    assert ended.stderr == "waiting for the push of run to user/net ...\n"
