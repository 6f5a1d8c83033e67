"""The log that people read, and the file that holds everything."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState

from helpers.training import make_arguments, make_model
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.data.sources import load_image_stream
from ladder_training.trainer.run_log import LOG_FILE, RunLog, clock, look_table, worse_line
from ladder_training.trainer.trainer import LadderTrainer
from ladder_training.views.two_views import TwoViewTransform

LINE = re.compile(
    r"step +(\d+)/6  loss \d+\.\d{4}  kNN % \d+\.\d( \d+\.\d){4}  \d+ images/s  \d+:\d\d left",
)


class NotebookTable(TrainerCallback):
    """What transformers chooses in a notebook, where IPython is not installed."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        print(f"Epoch 0/{state.num_train_epochs}")


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_image_stream("digits").select(range(300))


def trained(tmp_path: Path, tiny_backbone: Any, digits: Any, **fields: Any) -> LadderTrainer:
    arguments = make_arguments(tmp_path / "run", monitor_steps=3, learning_rate=0.05, **fields)
    return LadderTrainer(
        make_model(tiny_backbone), arguments, digits, digits.select(range(60)), transform=TwoViewTransform(32)
    )


@pytest.mark.parametrize("notebook", [False, True])
def test_a_line_per_logging_step_and_a_table_per_look(
    notebook: bool,
    tmp_path: Path,
    tiny_backbone: Any,
    digits: Any,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same in a notebook, where transformers puts a table of its own with "Epoch 0/9223372036854775807"."""
    if notebook:
        monkeypatch.setattr("transformers.trainer.DEFAULT_PROGRESS_CALLBACK", NotebookTable)
        monkeypatch.setattr("ladder_training.trainer.trainer.DEFAULT_PROGRESS_CALLBACK", NotebookTable)
    trainer = trained(tmp_path, tiny_backbone, digits, disable_tqdm=not notebook)
    assert len([c for c in trainer.callback_handler.callbacks if isinstance(c, RunLog)]) == 1
    trainer.train()
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("step")]
    assert [LINE.fullmatch(line)[1] for line in lines] == ["2", "4", "6"], said
    assert said.count("held-out images at step") == 3  # 0, 3, 6
    first, last = (said.split(f"held-out images at step {step}\n")[1].splitlines() for step in (0, 6))
    assert first[0].split() == ["stage1", "stage2", "stage3", "stage4", "all"]
    assert [row.split()[0] for row in first[1:4]] == ["kNN", "spread", "rank"]
    assert last[2].split()[2:] == first[1].split()[2:], "the row of the start is the first look"
    assert "Epoch" not in said and "{" not in said

    entries = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    logged = [
        {k: v for k, v in entry.items() if k in logs}
        for entry, logs in zip(entries, trainer.state.log_history, strict=True)
    ]
    assert logged == trainer.state.log_history
    assert [entry["step"] for entry in entries] == [0, 2, 3, 4, 6, 6, 6]
    assert any("loss/stage1.local" in entry for entry in entries) and all("seconds" in entry for entry in entries)


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path, tiny_backbone: Any, digits: Any) -> None:
    trained(tmp_path, tiny_backbone, digits, save_strategy="steps", save_steps=4).train()
    file = tmp_path / "run" / LOG_FILE
    file.write_text(file.read_text() + '{"step": 9')  # the process was killed while it wrote
    again = trained(tmp_path, tiny_backbone, digits, save_strategy="steps", save_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert steps == [0, 2, 3, 4, 6, 6, 6]


def test_the_table_of_a_run_without_labels_takes_the_lowest_level_of_a_stage() -> None:
    look = {
        "std/stage1.local": 0.5,
        "std/stage1.global": 0.25,
        "std/stage4.global": float("nan"),
        "rank/stage1.local": 3.0,
    }
    assert look_table(look, look, 7).splitlines() == [
        "held-out images at step 7",
        "          stage1  stage4",
        "  spread    0.25       -",
        "  rank       3.0       -",
    ]


def test_other_processes_say_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    log = RunLog(8, bar=False, write=said.append)
    state: Any = SimpleNamespace(is_world_process_zero=False, global_step=1, max_steps=3, log_history=[], epoch=0.0)
    arguments: Any = SimpleNamespace(output_dir=str(tmp_path))
    log.on_train_begin(arguments, state, None)
    log.on_log(arguments, state, None, {"loss": 1.0})
    assert not said and not list(tmp_path.iterdir())
    state.is_world_process_zero = True
    log.on_log(arguments, state, None, {"loss": 1.0, "images_per_second": 12.4})
    assert said == ["step 1/3  loss 1.0000  12 images/s"]


def test_features_that_are_worse_than_at_the_start_are_said_at_the_end() -> None:
    first = {"knn/stage1": 0.70, "knn/stage4": 0.81, "std/stage4": 0.2}
    line = worse_line({"knn/stage1": 0.75, "knn/stage4": 0.664, "std/stage4": 0.1}, first)
    assert line is not None and line.startswith("kNN is lower than before training: stage4 66.4 % (81.0 at start); ")
    assert worse_line({"knn/stage1": 0.695, "knn/stage4": 0.81}, first) is None  # half a point is nothing
    assert worse_line({}, {}) is None and worse_line({"knn/stage1": 0.1}, {}) is None

    state, control = TrainerState(global_step=5, max_steps=5), TrainerControl()
    state.is_world_process_zero = True
    for step, expected in ((5, 1), (4, 0)):  # an interrupted run has not ended
        written: list[str] = []
        log = RunLog(8, bar=False, write=written.append)
        log._first, log._latest = first, {"knn/stage4": 0.5}
        state.global_step = step
        log.on_train_end(None, state, control)
        assert len(written) == expected


def test_times() -> None:
    assert [clock(seconds) for seconds in (42.4, 725, 11_220)] == ["0:42", "12:05", "3:07:00"]


@pytest.mark.parametrize("installed", [False, True])
def test_tensorboard_is_the_default_where_it_is_installed(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladder_training.config.arguments.is_tensorboard_available", lambda: installed)
    assert LadderTrainingArguments(str(tmp_path), use_cpu=True).report_to == (["tensorboard"] if installed else [])
    assert LadderTrainingArguments(str(tmp_path), use_cpu=True, report_to="none").report_to == []
