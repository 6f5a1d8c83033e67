"""What a run records about its machine and its command, and which folders it takes."""

from pathlib import Path

import pytest
import torch

from ladder_training.errors import UserError
from ladder_training.runs.record import FINISHED, STOPPED, RecipeRecord, RunRecord
from ladder_training.runs.run_folder import (
    check_output,
    command_line,
    hardware,
    recorded_text,
    recorded_values,
)


def test_a_node_of_eight_gpus_is_eight_gpus(monkeypatch) -> None:
    """Each process sees all eight, but computes on one."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    assert hardware(torch.device("cuda", 3), 8) == "8 x H100"
    assert hardware(torch.device("cuda", 0), 64) == "64 x H100"
    assert hardware() == "1 x H100"
    assert "no GPU" in hardware(torch.device("cpu"), 1)
    assert hardware(torch.device("cpu"), 2).endswith("no GPU, 2 processes")


def test_secrets_of_the_recipe_and_of_the_command_line_are_hidden() -> None:
    text = "hub_token: 'first token'\ndataset: https://me:pw@host/x\nsteps: first\nwandb_api_key: abcdef\n"
    shown = recorded_text(text, {"hub_token": "second"})
    assert shown == "hub_token: '***'\ndataset: https://***@host/x\nsteps: first\nwandb_api_key: ***\n"
    values = recorded_values({"hub_token": "x", "dataset": ["https://me:pw@host/x", "digits"], "max_steps": 4})
    assert values == {"dataset": ["https://***@host/x", "digits"], "max_steps": 4}
    words = ["pretrain", "r.yaml", "--hub-token", "x y", "--hub_token=z", "--dataset", "https://me:pw@host/x"]
    words.append("hf_abcdefgh12")
    assert command_line(words) == (
        "ladder pretrain r.yaml --hub-token '***' '--hub_token=***' --dataset 'https://***@host/x' '***'"
    )


def test_more_steps_for_a_finished_run_point_to_from(tmp_path: Path) -> None:
    record = RunRecord(status=FINISHED, recipe=RecipeRecord("r", "", {"max_steps": 4, "seed": 1}))
    record.write(tmp_path)
    with pytest.raises(UserError, match=rf"max_steps was 4, is 8\).*--from {tmp_path}"):
        check_output(tmp_path, {"max_steps": 8, "seed": 1})
    with pytest.raises(UserError, match=r"choose another --output$"):
        check_output(tmp_path, {"max_steps": 8, "seed": 2})


def test_limits_that_stopped_a_run_may_be_raised_to_go_on(tmp_path: Path) -> None:
    RunRecord(status=STOPPED, recipe=RecipeRecord("r", "", {"max_steps": 4})).write(tmp_path)
    raised = {"max_bad_fraction": 0.2, "stop_on_collapse": False, "collapse_threshold": 0.0}
    assert check_output(tmp_path, {"max_steps": 4, **raised}).status == STOPPED
    with pytest.raises(UserError, match="base_momentum was not set"):
        check_output(tmp_path, {"max_steps": 4, **raised, "base_momentum": 0.9})


def test_leftovers_of_a_first_write_are_no_foreign_files(tmp_path: Path) -> None:
    for name in (".lock", ".partial-run.json.abc", ".partial-files.x"):
        (tmp_path / name).write_text("")
    assert check_output(tmp_path, {}) is None
    (tmp_path / ".mine").write_text("")
    with pytest.raises(UserError, match="not empty and holds no run"):
        check_output(tmp_path, {})
