"""One job works in a run's folder: others are told who, and a dead one does not keep them out."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ladder_training.errors import UserError
from ladder_training.runs import lock as lock_module
from ladder_training.runs.lock import FolderLock
from ladder_training.runs.run_folder import LOCK

HOLD = """
import os, sys, time
from ladder_training.runs.lock import FolderLock
with FolderLock(sys.argv[1], "`ladder pretrain`"):
    if os.fork() == 0:
        time.sleep(60)  # as a data worker that outlives its run
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_who_holds_the_lock_is_named_and_it_ends_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with FolderLock(folder, "`ladder pretrain`"):
        facts = json.loads((folder / LOCK).read_text())
        assert (facts["host"], facts["pid"]) == (socket.gethostname(), os.getpid())
        with pytest.raises(UserError) as caught, FolderLock(folder, "`ladder compare`"):
            pass
        assert f"another `ladder pretrain` is at work in {folder} (process {os.getpid()} on " in str(caught.value)
        assert facts["since"] in str(caught.value)
        with pytest.raises(UserError), FolderLock(folder, "`ladder pretrain`"):  # the refusal did not end the lock
            pass
    assert not folder.exists()


def test_the_lock_of_a_killed_process_is_free_although_its_fork_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        assert int(process.stdout.readline()) == process.pid
        with pytest.raises(UserError, match=f"process {process.pid} on "), FolderLock(tmp_path, "x"):
            pass
        process.kill()
        process.wait()
        assert (tmp_path / LOCK).exists()
        with FolderLock(tmp_path, "`ladder pretrain`"):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    finally:
        os.killpg(process.pid, 9)
    assert list(tmp_path.iterdir()) == []


JOB = """
import os, sys, time
from ladder_training.runs.lock import FolderLock
first = FolderLock(sys.argv[1], "`ladder pretrain`")
first.__enter__()
second = os.fork()
if second == 0:
    with FolderLock(sys.argv[1], "`ladder pretrain`", joins=True):
        print(os.getpid(), flush=True)
        time.sleep(60)
time.sleep(60)
"""


def test_a_process_that_outlives_its_launcher_keeps_others_out_and_is_named(tmp_path: Path) -> None:
    """As rank 1 of a job whose launcher and rank 0 were killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        second = int(process.stdout.readline())
        assert second != process.pid
        with pytest.raises(UserError, match=f"process {process.pid} on "), FolderLock(tmp_path, "x"):
            pass
        process.kill()
        process.wait()
        with (
            pytest.raises(UserError, match=f"another `ladder pretrain` is at work .*process {second} on "),
            FolderLock(tmp_path, "x"),
        ):
            pass
        os.kill(second, 9)
        until = time.monotonic() + 10
        while Path(f"/proc/{second}").exists() and time.monotonic() < until:
            time.sleep(0.02)
        with FolderLock(tmp_path, "x"):
            assert len((tmp_path / LOCK).read_text().splitlines()) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def test_the_last_process_of_a_job_removes_the_lock(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path, "x"), FolderLock(tmp_path, "x", joins=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(UserError, match="is at work"), FolderLock(tmp_path, "x"):
        pass
    second.__exit__(None, None, None)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("living", [True, False])
def test_without_locks_of_the_file_system_every_process_of_a_job_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, living: bool
) -> None:
    _without_locks(monkeypatch)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    facts = {"host": socket.gethostname(), "since": "then", "work": "`ladder pretrain`"}
    pids = [dead.pid, os.getppid() if living else dead.pid]
    (tmp_path / LOCK).write_text("".join(json.dumps({**facts, "pid": pid}) + "\n" for pid in pids))
    if living:
        with pytest.raises(UserError, match=f"process {os.getppid()} on "), FolderLock(tmp_path, "x"):
            pass
    else:
        with FolderLock(tmp_path, "x"):
            pass


def _without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"pid": "x"}', '{"pid": true, "host": "HERE"}', "half {"])
def test_without_locks_of_the_file_system_what_names_no_process_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    _without_locks(monkeypatch)
    (tmp_path / LOCK).write_text(content.replace("HERE", socket.gethostname()))
    if content == '{"pid": "x"}':  # no host: it may be another machine's
        with pytest.raises(UserError, match=r"delete .*\.lock"), FolderLock(tmp_path, "x"):
            pass
        return
    with FolderLock(tmp_path, "x"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_without_locks_of_the_file_system_a_living_process_keeps_others_out_and_a_dead_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_locks(monkeypatch)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = {"host": socket.gethostname(), "pid": os.getppid(), "since": "then", "work": "`ladder pretrain`"}
    (tmp_path / LOCK).write_text(json.dumps(living))
    with pytest.raises(UserError, match=rf"process {os.getppid()} on .*, since then"), FolderLock(tmp_path, "x"):
        pass
    (tmp_path / LOCK).write_text(json.dumps({**living, "pid": dead.pid}))
    with FolderLock(tmp_path, "x"):
        pass
    (tmp_path / LOCK).write_text(json.dumps({**living, "host": "another", "pid": dead.pid}))
    with pytest.raises(UserError, match=r"on another.*if that process is gone, delete"), FolderLock(tmp_path, "x"):
        pass


def test_on_windows_the_file_counts_and_nothing_is_called_that_windows_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sends_ctrl_c(*_: object) -> None:
        raise AssertionError("os.kill(pid, 0) is Ctrl-C on Windows")

    for name in ("pread", "pwrite", "register_at_fork"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(os, "kill", sends_ctrl_c)
    monkeypatch.setattr(lock_module, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: pid == os.getppid())
    living = {"host": socket.gethostname(), "pid": os.getppid(), "since": "then", "work": "`ladder pretrain`"}
    (tmp_path / LOCK).write_text(json.dumps(living))
    with pytest.raises(UserError, match=rf"process {os.getppid()} on .*, since then"), FolderLock(tmp_path, "x"):
        pass
    (tmp_path / LOCK).write_text(json.dumps({**living, "pid": os.getpid() + 1}) + "\n" + " " * 500)
    with FolderLock(tmp_path, "x"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_on_windows_the_lock_is_closed_before_it_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "sys", SimpleNamespace(platform="win32"))
    calls = []
    close, unlink = os.close, Path.unlink
    monkeypatch.setattr(os, "close", lambda number: (calls.append("close"), close(number)))
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (calls.append("unlink"), unlink(path, **options)))
    with FolderLock(tmp_path, "x"):
        calls.clear()
    assert calls == ["close", "unlink"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (Path("/proc/run"), tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"output folder .* cannot be used") as caught, FolderLock(place, "x"):
            pass
        assert "\n" not in str(caught.value)


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(target)
    with pytest.raises(UserError), FolderLock(tmp_path / "run", "x"):
        time.sleep(0)
    assert target.read_text() == "kept"
