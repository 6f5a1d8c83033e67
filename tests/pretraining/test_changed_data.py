"""A run does not go on with other data without a word; the same data set may be spelt in several ways."""

import json
from pathlib import Path

import pytest

from helpers.models import TINY_YAML
from helpers.stream_data import encoded
from ladder_training.cli.entry import main

RECIPE = f"""
image_size: 32
backbone_config: {TINY_YAML}
projection_hidden_size: 32
projection_size: 16
optimizer: adamw
learning_rate: 1e-3
per_device_train_batch_size: 8
max_steps: 4
save_steps: 2
monitor_steps: 0
stop_on_collapse: false
use_cpu: true
disable_tqdm: true
"""


def interrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words of a command whose run has checkpoint-2 of 4 steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "images").mkdir()
    for number in range(20):
        (tmp_path / "images" / f"{number:02d}.png").write_bytes(encoded(24, seed=number, kind="PNG"))
    words = ["pretrain", "tiny.yaml", "--output", "run", "--dataset"]
    assert main([*words, "images"]) == 0
    for path in (tmp_path / "run").glob("checkpoint-4/*"):
        path.unlink()
    (tmp_path / "run" / "checkpoint-4").rmdir()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    return words


def test_another_spelling_is_the_same_data_set_and_changed_data_are_named_and_can_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = interrupted_run(tmp_path, monkeypatch)
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    images = tmp_path / "images"
    capsys.readouterr()

    (images / "00.png").rename(images / "renamed.png")
    (images / "05.png").write_bytes(encoded(24, seed=99, kind="PNG"))
    assert main([*words, "images"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 files are gone (00.png), 1 are new (renamed.png), 1 have another content (05.png)" in error
    assert "--accept_changed_data true" in error

    (images / "renamed.png").rename(images / "00.png")
    (images / "05.png").write_bytes(encoded(24, seed=5, kind="PNG"))
    assert main([*words, str(images)]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
    for spelling in ("images/", "./images"):
        assert main([*words, spelling]) == 0
        assert "is finished" in capsys.readouterr().out


def test_accepted_changes_are_recorded_and_the_next_pass_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = interrupted_run(tmp_path, monkeypatch)
    (tmp_path / "images" / "more.png").write_bytes(encoded(24, seed=50, kind="PNG"))
    assert main([*words, "images"]) == 2
    assert main([*words, "images", "--accept_changed_data", "true"]) == 0
    assert "changed since the run began: images: 1 are new (more.png)" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["datasets"][0]["images"]) == ("finished", 21)
    assert json.loads((tmp_path / "run" / "data_files.json").read_text())["images"]["count"] == 21
