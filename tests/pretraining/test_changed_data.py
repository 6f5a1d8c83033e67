"""A run does not go on with other data without a word; the same data set may be spelt in several ways."""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from helpers.models import TINY_YAML, tiny_native_backbone
from helpers.stream_data import encoded
from ladder_training.cli.entry import main
from ladder_training.config.recipe import Recipe, resolve
from ladder_training.data import sources
from ladder_training.errors import UserError
from ladder_training.pretraining.build import load_data
from ladder_training.runs.record import DatasetRecord, RunRecord

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


def interrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[str]:
    """Words of a command whose run has checkpoint-2 of 4 steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "images").mkdir()
    for number in range(20):
        (tmp_path / "images" / f"{number:02d}.png").write_bytes(encoded(24, seed=number, kind="PNG"))
    words = ["pretrain", "tiny.yaml", "--output", "run", *more, "--dataset"]
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


@pytest.mark.parametrize(
    ("newest", "accept", "loaded"),
    [("b" * 40, False, "a" * 40), ("a" * 40, False, "a" * 40), (None, False, "a" * 40), ("b" * 40, True, None)],
)
def test_a_run_goes_on_with_the_commit_of_the_hub_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, newest: str | None, accept: bool, loaded: str | None
) -> None:
    """Also if the Hub does not answer; and the split for monitoring is of the same commit."""
    revisions = []

    def load(name: str, split: str, revision: str | None = None, **settings: Any) -> Any:
        revisions.append((split, revision))
        return datasets.Dataset.from_dict({"image": [1, 2]}, split=split)

    def on_the_hub(name: str, revision: str | None = None) -> tuple[str, str | None]:
        return name, revision or newest

    monkeypatch.setattr(sources, "load_image_stream", load)
    monkeypatch.setattr(sources, "hub_dataset", on_the_hub)
    monkeypatch.setattr(sources, "local_files", lambda name, split: None)
    monkeypatch.setattr(sources, "split_names", lambda name, revision=None: ["train", "test"])
    recipe = resolve(Recipe("r", "", {"dataset": "user/pets", "accept_changed_data": accept}, "here"))
    earlier = RunRecord(datasets=[DatasetRecord("user/pets", hub="user/pets", revision="a" * 40)])
    data = load_data(recipe, earlier)
    expected = loaded or newest
    assert revisions == [("train", loaded), ("test", expected)]
    assert data.records[0].revision == expected
    said = [f"user/pets: the Hub has commit {newest} now; this run goes on with {'a' * 40}"]
    assert data.notes == (said if newest == "b" * 40 and not accept else [])


def test_which_steps_weights_are_published_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    looks = "eval_strategy: steps\neval_steps: 2\nload_best_model_at_end: true\n"
    recipe = RECIPE.replace(
        "monitor_steps: 0", f"{looks}metric_for_best_model: std/stage4.local\ngreater_is_better: false"
    )
    (tmp_path / "best.yaml").write_text(recipe)
    for number in range(28):
        path = tmp_path / "images" / ("test" if number > 19 else "train") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(24, seed=number, kind="PNG"))
    assert main(["pretrain", "best.yaml", "--dataset", "images", "--output", "run"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    state = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())
    assert record["best"] == {
        "step": state["best_global_step"],
        "metric": "std/stage4.local",
        "value": state["best_metric"],
    }
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"of step {record['best']['step']}, the best `std/stage4.local` of {record['best']['value']:.4g}" in card


def test_options_of_several_data_sets_or_of_the_hub_are_refused_or_said_for_one_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(encoded(24, seed=number, kind="PNG"))
    with pytest.raises(UserError, match="mix has no effect on one data set"):
        load_data(resolve(Recipe("r", "", {"dataset": str(tmp_path), "mix": [1.0, 2.0]}, "here")))
    data = load_data(resolve(Recipe("r", "", {"dataset": str(tmp_path), "revision": "v2"}, "here")))
    assert data.notes == ["revision v2 is not used: no data set is on the Hub"]


def test_a_run_does_not_go_on_from_other_weights_than_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It went on from its checkpoint without a word, while the command named weights that it had never seen."""
    base, stages = tmp_path / "base", ["stage1", "stage2", "stage3", "stage4"]
    tiny_native_backbone(seed=1, out_features=stages).save_pretrained(base)
    words = interrupted_run(tmp_path, monkeypatch, "--from", "base", "--backbone_config", "null")
    began = json.loads((tmp_path / "run" / "run.json").read_text())["started_from"]["weights"]
    assert began == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()[:16]
    tiny_native_backbone(seed=2, out_features=stages).save_pretrained(base)
    now = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()[:16]
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert main([*words, "images"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ladder: error: base holds other weights (sha256 {now}) than those with which the run in run began ({began}): "
        "put those back, or choose another --output to start from the new ones"
    )
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    # A run of an earlier version did not record it, and goes on.
    record = json.loads(before)
    del record["started_from"]["weights"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    assert main([*words, "images"]) == 0
