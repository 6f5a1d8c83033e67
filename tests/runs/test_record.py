"""run.json: written and read by one record, also the files of older and newer versions."""

import json
from pathlib import Path
from typing import Any

import pytest

from ladder_training.errors import LevelCollapsed, NotFinite, TooManyBadImages, TrainingStopped, UserError
from ladder_training.files import write_json
from ladder_training.runs.record import RUN_FILE, VERSION, DatasetRecord, RecipeRecord, RunRecord

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"


def on_disk(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "status", "steps", "stopped_by"),
    [("finished", "finished", 2, None), ("interrupted", "running", 1, None), ("collapsed", "stopped", 1, "collapse")],
)
def test_a_file_without_a_version_is_read_and_rewritten_without_a_loss(
    name: str, status: str, steps: int, stopped_by: str | None, tmp_path: Path
) -> None:
    record = RunRecord.read(OLD_RUNS / name)
    assert (record.status, record.steps, record.stopped_by) == (status, steps, stopped_by)
    assert (record.version, record.seed, record.batch_size, record.starts) == (VERSION, 42, 16, 1)
    assert record.recipe.name == "tiny" and record.recipe.values["backbone_config"]["hidden_sizes"] == [4, 4, 4, 4]
    assert record.datasets == [DatasetRecord("digits", split="train", fingerprint="dbc1f24e4400e9eb", images=1428)]
    record.write(tmp_path)
    before, after = on_disk(OLD_RUNS / name), on_disk(tmp_path)
    assert "version" not in before
    assert {key: after[key] for key in before} == before
    assert {key: after[key] for key in after.keys() - before.keys()} == {
        "version": VERSION,
        "stopped_by": stopped_by,
        "resumed_with": [],
        "monitoring_images": 0,
        "best": None,
        "imported": None,
        "started_from": None,
    }
    assert RunRecord.read(tmp_path) == record


def test_an_old_stop_for_another_reason_is_no_collapse(tmp_path: Path) -> None:
    write_json(tmp_path / RUN_FILE, {"recipe": {}, "status": "stopped", "reason": "the loss of the total is nan"})
    assert RunRecord.read(tmp_path).stopped_by == "other"


def test_the_kind_of_a_stop_is_the_exceptions_and_not_a_phrase(tmp_path: Path) -> None:
    for error, kind in (
        (LevelCollapsed("stage3.global", 7, 0.0123, 0.1), "collapse"),
        (NotFinite("the loss of stage1.local is nan at step 3"), "not_finite"),
        (TooManyBadImages("3 of the 9 images read so far cannot be read"), "bad_images"),
        (TrainingStopped("a worker says that stage3.global has collapsed"), "other"),
    ):
        record = RunRecord()
        record.stop(error)
        record.write(tmp_path)
        found = RunRecord.read(tmp_path)
        assert (found.status, found.reason, found.stopped_by) == ("stopped", str(error), kind)
    found.start("ladder pretrain digits")
    assert (found.status, found.reason, found.stopped_by, found.starts) == ("running", None, None, 1)


def test_a_newer_file_keeps_its_version_and_what_this_version_does_not_know(tmp_path: Path) -> None:
    content = {
        "version": VERSION + 1,
        "status": "running",
        "energy": {"kWh": 3},
        "recipe": {"name": "digits", "values": {"seed": 1}, "source": "the Hub"},
        "datasets": [{"name": "digits", "licence": "cc0"}],
    }
    write_json(tmp_path / RUN_FILE, content)
    record = RunRecord.read(tmp_path)
    record.steps = 5
    record.write(tmp_path)
    after = on_disk(tmp_path)
    assert (after["version"], after["steps"], after["energy"]) == (VERSION + 1, 5, {"kWh": 3})
    assert after["recipe"] == {"name": "digits", "text": "", "values": {"seed": 1}, "source": "the Hub"}
    assert after["datasets"][0]["licence"] == "cc0"


def test_a_record_is_what_was_written(tmp_path: Path) -> None:
    record = RunRecord(
        method="byol",
        recipe=RecipeRecord("tiny", "seed: 3", {"seed": 3}),
        seed=3,
        datasets=[DatasetRecord("user/pets", hub="user/pets", images=None)],
        seconds=1,
        versions={"torch": "2"},
    )
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record


def test_no_file_is_no_run(tmp_path: Path) -> None:
    assert RunRecord.read(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "does not describe a run"),
        ("null", "does not describe a run"),
        ('{"status": "finished"}', "does not describe a run"),
        ('{"recipe": "digits"}', "recipe cannot be 'digits'"),
        ('{"recipe": {"values": []}}', r"values cannot be \[\]"),
        ('{"recipe": {}, "steps": "many"}', "steps cannot be 'many'"),
        ('{"recipe": {}, "steps": true}', "steps cannot be True"),
        ('{"recipe": {}, "seconds": "1"}', "seconds cannot be '1'"),
        ('{"recipe": {}, "datasets": ["digits"]}', "datasets cannot be"),
    ],
)
def test_what_describes_no_run_is_said_in_one_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        RunRecord.read(tmp_path)
    assert str(tmp_path / RUN_FILE) in str(caught.value) and "\n" not in str(caught.value)


def test_another_programs_file_beside_weights_is_no_run_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert RunRecord.read_beside_weights(tmp_path) is None
    file = tmp_path / RUN_FILE
    for content in ("[]", '{"status": "finished", "steps": 500}'):
        file.write_text(content, encoding="utf-8")
        assert RunRecord.read_beside_weights(tmp_path) is None
    file.write_text('{"recipe": {"values": {"image_range": [0, 4095]}}}', encoding="utf-8")
    found = RunRecord.read_beside_weights(tmp_path)
    assert found is not None and found.recipe.values == {"image_range": [0, 4095]}
    for content, said in (("{", "cannot be read"), ('{"recipe": "digits"}', "recipe cannot be 'digits'")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=said):
            RunRecord.read_beside_weights(tmp_path)
