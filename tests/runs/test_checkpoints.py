"""Checkpoints are whole or not there, damaged ones are set aside, and the last good one is never deleted."""

import logging
import math
import os
import shutil
from pathlib import Path

import pytest

from ladder_training.runs.checkpoints import (
    damage,
    list_checkpoints,
    newest_valid_checkpoint,
    partial_folder,
    publish_checkpoint,
    remove_folder,
    rotate_checkpoints,
)
from ladder_training.trainer.momentum import target_momentum
from ladder_training.trainer.resuming import missing_part


def write(run: Path, step: int) -> Path:
    partial = partial_folder(run, step)
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(bytes(range(256)) * step)
    (partial / "state.json").write_text("{}")
    return publish_checkpoint(partial, run, step)


def test_a_published_checkpoint_is_whole_and_newest_by_number(tmp_path) -> None:
    for step in (5, 100, 20):
        write(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-20", "checkpoint-100"]
    assert newest_valid_checkpoint(tmp_path).name == "checkpoint-100"
    assert not list(tmp_path.glob(".*"))


def test_a_write_that_was_cut_off_is_not_a_checkpoint_and_is_cleaned_up(tmp_path) -> None:
    write(tmp_path, 5)
    partial = partial_folder(tmp_path, 10)
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert newest_valid_checkpoint(tmp_path).name == "checkpoint-5"
    assert not partial.exists()


MANIFESTS = ['{"files": [1, 2]}', "[]", "null", '{"files": {"../x": "0"}}', '{"files": {"a": 1}}', "{" * 5000]


@pytest.mark.parametrize(
    "harm", ["flip a byte", "truncate", "remove a file", "remove the manifest", "empty manifest", *MANIFESTS]
)
def test_damage_is_set_aside_with_a_warning_and_the_one_before_is_used(tmp_path, caplog, harm) -> None:
    write(tmp_path, 5)
    newest = write(tmp_path, 10)
    file = newest / "model.safetensors"
    data = file.read_bytes()
    if harm == "flip a byte":
        file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif harm == "truncate":
        file.write_bytes(data[:-1])
    elif harm == "remove a file":
        file.unlink()
    elif harm == "remove the manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text("" if harm == "empty manifest" else harm)
    assert damage(newest) is not None
    with caplog.at_level(logging.WARNING):
        assert newest_valid_checkpoint(tmp_path).name == "checkpoint-5"
    assert "checkpoint-10 is damaged" in caplog.text
    assert (tmp_path / "damaged-checkpoint-10").is_dir()


def test_nothing_to_resume_from(tmp_path) -> None:
    assert newest_valid_checkpoint(tmp_path / "missing") is None
    assert newest_valid_checkpoint(tmp_path) is None


@pytest.mark.parametrize(("limit", "left"), [(None, 4), (3, 3), (1, 1), (0, 4)])
def test_rotation_keeps_the_newest_and_never_none(tmp_path, limit, left) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    rotate_checkpoints(tmp_path, limit)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{s}" for s in range(5 - left, 5)]
    assert not list(tmp_path.glob(".*"))


def test_rotation_keeps_the_best(tmp_path) -> None:
    best = write(tmp_path, 1)
    for step in (2, 3):
        write(tmp_path, step)
    rotate_checkpoints(tmp_path, 1, keep=best)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3"]


def test_writing_the_same_step_again_replaces_it(tmp_path, monkeypatch) -> None:
    old = write(tmp_path, 3)
    (old / "model.safetensors").write_bytes(b"old")
    there = []
    delete = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: (there.append(damage(old)), delete(*args, **kwargs)))
    again = write(tmp_path, 3)
    assert again == old
    assert there == [None]  # when the old one is deleted, the new one is in its place
    assert damage(again) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_at_every_moment_of_writing_and_deleting_a_whole_checkpoint_exists(tmp_path, monkeypatch) -> None:
    """Whatever touches the disk is preceded by a look at what a kill at that moment would leave."""
    write(tmp_path, 1)
    looks = []

    def watched(function):
        def call(*args, **kwargs):
            looks.append([path.name for path in list_checkpoints(tmp_path) if damage(path) is None])
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (os, "fsync"),
        (shutil, "rmtree"),
        (Path, "rename"),
        (Path, "write_text"),
        (Path, "write_bytes"),
    ):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    for step in (2, 3):
        write(tmp_path, step)
        rotate_checkpoints(tmp_path, 1)
    assert len(looks) > 20
    assert all(looks)
    assert {name for look in looks for name in look} == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_momentum_schedule_by_hand() -> None:
    assert target_momentum(0, 100, 0.99) == pytest.approx(0.99, abs=1e-15)
    assert target_momentum(50, 100, 0.9) == pytest.approx(0.95)
    assert target_momentum(25, 100, 0.9) == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)
    values = [target_momentum(step, 40, 0.97) for step in range(41)]
    assert values == sorted(values)
    assert values[-1] == 1
    assert values[-2] < 1


def test_links_in_place_of_leftovers_are_deleted_and_what_they_point_to_is_not(tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    run = tmp_path / "run"
    write(run, 5)
    for name in (".partial-checkpoint-7", ".deleted-checkpoint-3", "damaged-checkpoint-9"):
        (run / name).symlink_to(precious)
    (run / "checkpoint-9").symlink_to(precious)
    assert newest_valid_checkpoint(run).name == "checkpoint-5"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-5", "damaged-checkpoint-9"]
    write(run, 7)
    remove_folder(run / "checkpoint-7")
    assert (precious / "file").read_text() == "kept"


WHOLE = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "loader_state_0.json")


@pytest.mark.parametrize("lost", [*WHOLE, "rng_state.pth", None])
def test_a_checkpoint_whose_manifest_lacks_a_part_is_not_resumed(tmp_path, lost) -> None:
    names = {*WHOLE, "rng_state.pth"} - {lost}
    for step, kept in ((2, {*WHOLE, "rng_state.pth"}), (4, names)):
        partial = partial_folder(tmp_path, step)
        partial.mkdir()
        for name in kept:
            (partial / name).write_text(name)
        publish_checkpoint(partial, tmp_path, step)
    assert newest_valid_checkpoint(tmp_path, missing_part).name == ("checkpoint-4" if lost is None else "checkpoint-2")


def test_every_process_needs_its_position_and_a_model_alone_is_whole_in_its_way() -> None:
    two = {*WHOLE, "loader_state_1.json", "rng_state_0.pth", "rng_state_1.pth"}
    assert missing_part(two, 2) is None
    assert missing_part(two - {"loader_state_1.json"}, 2) == "loader_state_1.json"
    assert missing_part(two - {"rng_state_1.pth"}, 2) == "the random state of process 1"
    assert missing_part({"model.safetensors", "trainer_state.json", "config.json"}, 1) is None
