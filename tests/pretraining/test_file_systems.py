"""Disks that are full, read-only or lack operations: one line, nothing is lost, and the same command goes on."""

import errno
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.kill_client import assert_same_run, command, make_place
from helpers.kill_points import Before, forked, killed_at_each_change, refusing
from ladder_training.cli.entry import main
from ladder_training.runs.checkpoints import damage, list_checkpoints
from ladder_training.trainer.resuming import missing_part

STEPS = 6  # more than one pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    assert forked(lambda: main(words(place, "whole"))) == 0
    return place / "whole"


def words(place: Path, output: str) -> list[str]:
    return command(place, output, False, 0, STEPS)


def last_line(capfd: pytest.CaptureFixture[str]) -> str:
    lines = capfd.readouterr().err.strip().splitlines()
    assert not [line for line in lines if line.startswith("Traceback")], "\n".join(lines)
    return lines[-1] if lines else ""


def below(run: Path, refuse: Before) -> Before:
    """Refuse only once the run has its first checkpoint."""

    def before(name: str, path: Any) -> None:
        if list_checkpoints(run):
            refuse(name, path)

    return before


@pytest.mark.parametrize(
    ("number", "words_of_it"),
    [(errno.ENOSPC, "No space left on device; free space"), (errno.EROFS, "Read-only file system; the file system is")],
)
def test_a_disk_that_refuses_is_one_line_and_the_same_command_goes_on_later(
    place: Path, whole: Path, capfd: pytest.CaptureFixture[str], number: int, words_of_it: str
) -> None:
    name = errno.errorcode[number]
    run = place / name
    assert forked(lambda: main(words(place, name)), below(run, refusing(number, ("open", "mkdir", "rename")))) == 2
    line = last_line(capfd)
    assert words_of_it in line and str(run) in line and "the same command goes on" in line
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-2"]
    assert damage(run / "checkpoint-2", missing_part) is None
    assert forked(lambda: main(words(place, name))) == 0
    assert_same_run(whole, run)
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("number", "names"), [(errno.EINVAL, ("fsync",)), (errno.ENOSYS, ("fsync", "chmod")), (errno.EPERM, ("chmod",))]
)
def test_what_a_file_system_lacks_is_skipped_and_said_once(
    place: Path, whole: Path, capfd: pytest.CaptureFixture[str], number: int, names: tuple[str, ...]
) -> None:
    name = f"lacks-{errno.errorcode[number]}"
    assert forked(lambda: main(words(place, name)), refusing(number, names)) == 0
    said = capfd.readouterr().err
    for operation, words_of_it in (("fsync", "has no fsync"), ("chmod", "does not set permissions")):
        assert said.count(words_of_it) == (operation in names)
    assert_same_run(whole, place / name)


def test_a_rename_to_another_file_system_is_a_copy_of_a_file_and_an_error_of_a_folder(
    place: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = place / "devices"
    assert forked(lambda: main(words(place, "devices")), refusing(errno.EXDEV, ("rename",))) == 2
    assert "Invalid cross-device link" in last_line(capfd)
    assert not list_checkpoints(run)
    assert forked(lambda: main(words(place, "devices"))) == 0
    assert_same_run(whole, run)


@pytest.mark.slow
def test_a_run_killed_before_every_nineteenth_change_ends_whole(place: Path, whole: Path) -> None:
    kills = 0
    for number in killed_at_each_change(lambda: main(words(place, "killed")), every=19):
        kills += 1
        assert forked(lambda: main(words(place, "killed"))) == 0, number
        run = place / "killed"
        assert_same_run(whole, run)
        assert (run / "README.md").is_file() and json.loads((run / "run.json").read_text())["status"] == "finished"
        assert not [path.name for path in run.rglob("*") if path.name.startswith(".")], number
        shutil.rmtree(run)
    assert kills > 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_and_a_read_only_one(
    place: Path, whole: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = [*words(place, "x"), "--output", str(small_disk / "run")]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700 * 1024))
    assert forked(lambda: main(start)) == 2
    line = last_line(capfd)
    assert "No space left on device" in line and "free space" in line
    before = [path for path in list_checkpoints(small_disk / "run") if damage(path, missing_part) is not None]
    assert before == []
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert forked(lambda: main(start)) == 2
    assert "Read-only file system" in last_line(capfd)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    ballast.unlink()
    assert forked(lambda: main(start)) == 0
    assert_same_run(whole, small_disk / "run")
