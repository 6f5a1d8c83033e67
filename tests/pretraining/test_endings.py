"""How a run ends: only its last step finishes it, and whatever else ends it is recorded."""

import json
import os
import pickle
import signal
from functools import partial
from pathlib import Path

import pytest
from transformers.trainer_callback import DefaultFlowCallback

from helpers.kill_client import command, make_place
from helpers.kill_points import forked
from ladder_training.cli import entry
from ladder_training.cli.commands import Command
from ladder_training.cli.entry import main
from ladder_training.errors import UserError, WorkerDied, worker_death
from ladder_training.pretraining.run import _compare_versions
from ladder_training.runs.checkpoints import list_checkpoints
from ladder_training.runs.interruption import Interrupted, StopRequest, ended_by_signals
from ladder_training.runs.record import RunRecord
from ladder_training.runs.run_folder import versions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("endings"))


def test_a_run_that_a_callback_ends_early_is_not_finished(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`enable_jit_checkpoint` of transformers ended runs like this, and they were published."""
    words, run = [*command(place, "early", False, 0, 6), "--enable_jit_checkpoint"], place / "early"
    step_end = DefaultFlowCallback.on_step_end

    def stop_at_two(self, args, state, control, **kwargs):
        control = step_end(self, args, state, control, **kwargs)
        control.should_training_stop = state.global_step == 2
        return control

    with monkeypatch.context() as patch:
        patch.setattr(DefaultFlowCallback, "on_step_end", stop_at_two)
        assert forked(lambda: main(words)) == 2
    assert "training ended at step 2 of 6: the run is not finished" in capfd.readouterr().err
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["steps"], record["finished"]) == ("interrupted", 2, None)
    assert not (run / "config.json").exists()
    assert forked(lambda: main(words)) == 0
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    (run / "README.md").unlink()  # as after a kill before the card
    for name in (".lock", ".partial-run.json.x"):  # as after a kill before the end
        (run / name).write_text("")
    assert forked(lambda: main(words)) == 0
    assert (run / "README.md").is_file()
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-6"]


def test_other_versions_are_said_and_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    record = RunRecord(versions={**versions(), "torch": "2.0.0"}, steps=7)
    _compare_versions(record, say=True)
    now = versions()["torch"]
    assert record.resumed_with == [{"step": 7, "versions": {"torch": now}}]
    assert f"torch 2.0.0 -> {now}" in capsys.readouterr().err
    _compare_versions(record := RunRecord(versions=versions()), say=True)
    assert record.resumed_with == [] and capsys.readouterr().err == ""


def test_a_dead_data_worker_has_the_hint_wherever_torch_reports_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dies(options: object) -> int:
        raise RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed. ")

    monkeypatch.setattr(Command, "function", lambda self: dies)
    assert main(["card", "x"]) == 2
    error = capsys.readouterr().err
    assert "(pid 77)" in error and "no memory left" in error and error.count("\n") == 1
    died = worker_death(RuntimeError("DataLoader worker (pid 77) exited"))
    assert isinstance(died, WorkerDied) and isinstance(died, UserError)
    assert worker_death(died) is died
    assert worker_death(RuntimeError("shapes differ")) is None


def test_signals_end_a_command_with_their_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)):
        work = partial(os.kill, os.getpid(), number)
        monkeypatch.setattr(Command, "function", lambda self, work=work: lambda options: work())
        assert main(["compare", "x"]) == code
        assert "interrupted" in (error := capsys.readouterr().err) and "the same command goes on" in error
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_does_not_disturb_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def work(number: int) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(number)

    monkeypatch.setattr(Command, "function", lambda self: lambda options: work(signal.SIGTERM))
    assert main(["compare", "x"]) == 143
    assert cleaned == [signal.SIGTERM]
    hide, told = entry._fail, []

    def failing(message: str, code: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)  # while the last line is printed
        told.append(message)
        return hide(message, code)

    monkeypatch.setattr(entry, "_fail", failing)
    monkeypatch.setattr(Command, "function", lambda self: lambda options: os.kill(os.getpid(), signal.SIGINT))
    assert main(["compare", "x"]) == 130
    assert len(told) == 1
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_stop_request_keeps_the_first_signal_and_a_second_interrupt_ends_at_once() -> None:
    with ended_by_signals(), StopRequest() as stop, stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted) as caught, ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    again = pickle.loads(pickle.dumps(caught.value))  # as between the processes of a comparison
    assert (again.code, again.number, str(again)) == (143, signal.SIGTERM, "SIGTERM")
