"""Killed before each change of the file system: a checkpoint, a re-save, a rotation, a publication and a card."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.kill_points import killed_at_each_change
from ladder_model_cards import write_card
from ladder_training.files import folder_written_at_once, write_json
from ladder_training.runs.checkpoints import (
    damage,
    list_checkpoints,
    newest_valid_checkpoint,
    partial_folder,
    publish_checkpoint,
    remove_folder,
    remove_leftovers,
    rotate_checkpoints,
)
from ladder_training.runs.run_folder import check_output


def write(run: Path, step: int, content: str) -> None:
    partial = partial_folder(run, step)
    if partial.exists():
        remove_folder(partial)
    partial.mkdir(parents=True)
    for name in ("model.safetensors", "state.json"):
        (partial / name).write_text(f"{content} {name}")
    publish_checkpoint(partial, run, step)


def content(checkpoint: Path) -> str:
    assert damage(checkpoint) is None
    words = {(checkpoint / name).read_text().split()[0] for name in ("model.safetensors", "state.json")}
    assert len(words) == 1
    return words.pop()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def each_kill(run: Path, prepare: Callable[[], None], work: Callable[[], None]) -> int:
    """Kill the work at each change, each time from the prepared folder; returns how many there were."""
    prepare()
    kills = 0
    for _ in killed_at_each_change(work):
        kills += 1
        yield_state(run)
        shutil.rmtree(run, ignore_errors=True)
        prepare()
    return kills


def yield_state(run: Path) -> None:
    """What every kill must leave: a whole checkpoint, and after the next start nothing else."""
    newest = newest_valid_checkpoint(run)
    assert newest is not None
    content(newest)
    assert not [path.name for path in run.iterdir() if not path.name.startswith("checkpoint-")]


def test_a_checkpoint_killed_at_each_change(run: Path) -> None:
    found = set()
    write(run, 5, "old")
    kills = 0
    for _ in killed_at_each_change(lambda: write(run, 10, "new")):
        kills += 1
        yield_state(run)
        found |= {path.name for path in list_checkpoints(run)}
        write(run, 10, "new")  # the same command
        assert [content(path) for path in list_checkpoints(run)] == ["old", "new"]
        remove_folder(run / "checkpoint-10")
    assert kills >= 10
    assert found == {"checkpoint-5", "checkpoint-10"}


def test_a_checkpoint_written_again_killed_at_each_change(run: Path) -> None:
    """Also between the two renames, when neither the old nor the new one has its name."""
    found = set()

    def prepare() -> None:
        write(run, 10, "old")

    prepare()
    kills = 0
    for _ in killed_at_each_change(lambda: write(run, 10, "new")):
        kills += 1
        yield_state(run)
        found.add(content(run / "checkpoint-10"))
        shutil.rmtree(run)
        prepare()
    assert kills >= 14
    assert found == {"old", "new"}


def test_a_rotation_killed_at_each_change(run: Path) -> None:
    def prepare() -> None:
        for step in (1, 2, 3):
            write(run, step, "x")

    assert each_kill(run, prepare, lambda: rotate_checkpoints(run, 1)) >= 8


def test_a_first_write_killed_at_each_change_leaves_a_folder_that_the_same_command_takes(run: Path) -> None:
    kills = 0
    for _ in killed_at_each_change(lambda: write_json(run / "run.json", {"recipe": {}})):
        kills += 1
        if (run / "run.json").exists():
            assert json.loads((run / "run.json").read_text()) == {"recipe": {}}
        else:
            assert check_output(run, {}) is None
        remove_leftovers(run)
        assert not run.exists() or {path.name for path in run.iterdir()} <= {"run.json"}
        shutil.rmtree(run, ignore_errors=True)
    assert kills >= 4


@pytest.mark.parametrize("again", [False, True])
def test_a_publication_killed_at_each_change_is_whole_after_the_next(run: Path, again: bool) -> None:
    def publish(words: str) -> None:
        with folder_written_at_once(run) as folder:
            (folder / "pretraining").mkdir()
            for name in ("config.json", "model.safetensors", "pretraining/model.safetensors"):
                (folder / name).write_text(words)

    def prepare() -> None:
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        if again:
            publish("old")

    prepare()
    kills = 0
    for _ in killed_at_each_change(lambda: publish("new")):
        kills += 1
        assert set(tree(run).values()) <= {b"old", b"new", b""}
        remove_leftovers(run)
        publish("new")
        assert set(tree(run)) == {"config.json", "model.safetensors", "pretraining/model.safetensors"}
        assert set(tree(run).values()) == {b"new"}
        prepare()
    assert kills >= 12
    assert [path.name for path in run.parent.iterdir()] == ["run"]  # nothing is left beside the folder


def test_a_card_killed_at_each_change_is_whole_after_the_next(run: Path) -> None:
    run.mkdir()
    log = [{"step": step, "loss": 4.0 - step, "loss/stage4.global": 4.0 - step} for step in (1, 2, 3)]
    write_json(run / "trainer_state.json", {"log_history": log})
    write_json(run / "run.json", {"recipe": {"name": "r", "values": {}}, "status": "finished", "method": "byol"})
    write_json(run / "config.json", {"model_type": "resnet", "architectures": ["ResNetBackbone"]})
    write_card(run)
    whole = tree(run)
    made = set(whole) - {"trainer_state.json", "run.json", "config.json"}
    assert "README.md" in made and len(made) > 1

    def clear() -> None:
        for name in made:
            (run / name).unlink(missing_ok=True)

    clear()
    kills = 0
    for _ in killed_at_each_change(lambda: write_card(run)):
        kills += 1
        assert not (run / "README.md").exists() or tree(run).items() >= whole.items()
        remove_leftovers(run)
        write_card(run)
        assert tree(run) == whole
        clear()
    assert kills >= 8
