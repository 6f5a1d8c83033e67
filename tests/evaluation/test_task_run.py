"""The shell of all tasks: what it checks before the work, and what it makes of the outcome."""

import errno
import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from ladder_training.errors import UserError
from ladder_training.evaluation import detection, knn, linear, report, segmentation, semi_supervised
from ladder_training.evaluation.options import KnnOptions
from ladder_training.evaluation.task_run import Outcome, Request, TaskRun, run_task


def rows(count: int) -> Dataset:
    return Dataset.from_dict({"label": list(range(count))})


def request(output=None, **changes) -> Request:
    """What a user asks for, of data that the work below does not read."""
    given = {"model": "some/model", "dataset": rows(3), "test_dataset": rows(2), "output": output, "device": "cpu"}
    return Request(**{**given, "seed": 7, "settings": {"k": "5"}, **changes})


def work(run: TaskRun) -> Outcome:
    """A task that only notes what it was given."""
    run.notes.append(f"{len(run.splits.fit)} and {len(run.splits.score)} rows on {run.device}")
    protocol = {"k": run.options.k - 2, "seen": True}
    return Outcome("made_up", {"stage1": {"accuracy": 0.5}}, 3, 2, ["a"], protocol)


def test_the_outcome_becomes_the_result_and_its_file(tmp_path):
    result = run_task(KnnOptions, work, request(tmp_path))
    assert result.path == tmp_path / "evaluation" / "made_up-dataset.json"
    saved = json.loads(result.path.read_text())
    assert (saved["task"], saved["model"], saved["seed"], saved["split"]) == ("made_up", "some/model", 7, "test")
    assert saved["count"] == {"fit": 3, "score": 2}
    assert saved["notes"] == ["3 and 2 rows on cpu"]
    # Options first, replaced by what the work found out, then its own facts.
    assert list(saved["protocol"])[-2:] == ["temperature", "seen"]
    assert (saved["protocol"]["k"], saved["protocol"]["temperature"], saved["protocol"]["seen"]) == (3, 0.1, True)
    assert 0 <= saved["seconds"] < 60


def test_only_the_first_process_writes(tmp_path):
    class Accelerator:
        device, is_main_process, waited = torch.device("cpu"), False, 0

        def wait_for_everyone(self) -> None:
            self.waited += 1

    accelerator = Accelerator()

    def on_two(run: TaskRun) -> Outcome:
        run.accelerator = accelerator
        return work(run)

    assert run_task(KnnOptions, on_two, request(tmp_path)).path is None
    assert (list(tmp_path.iterdir()), accelerator.waited) == ([], 1)
    accelerator.is_main_process = True
    assert run_task(KnnOptions, on_two, request(tmp_path)).path.is_file()
    assert run_task(KnnOptions, on_two, request(None)).path is None


def test_nothing_is_done_where_the_result_could_not_be_written(tmp_path):
    (tmp_path / "evaluation").write_text("taken")
    started = []
    with pytest.raises(UserError, match="is a file; give a folder"):
        run_task(KnnOptions, started.append, request(tmp_path))
    with pytest.raises(UserError, match="did you mean temperature"):
        run_task(KnnOptions, started.append, request(settings={"temprature": 1}))
    with pytest.raises(UserError, match="split test of dataset is empty"):
        run_task(KnnOptions, started.append, request(test_dataset=rows(0)))
    assert not started


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    """The work was done, and its result lost in the end."""
    started = []
    (tmp_path / "file").write_text("taken")
    with pytest.raises(UserError, match=r"the result could not be written: .*evaluation: Not a directory"):
        run_task(KnnOptions, started.append, request(tmp_path / "file" / "output"))

    def refused(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(report.tempfile, "TemporaryFile", refused)
    folder = tmp_path / "new" / "run"
    with pytest.raises(UserError, match=f"not be written: {folder}/evaluation: Read-only file system; .* writable"):
        run_task(KnnOptions, started.append, request(folder))
    assert not started and not folder.parent.exists()


def test_a_disk_that_fills_during_the_work_does_not_take_the_result(tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(report, "write_record", full)
    with pytest.raises(OSError, match="No space left"):
        run_task(KnnOptions, work, request(tmp_path))
    assert "stage1    0.5000" in capsys.readouterr().out


def test_the_seed_holds_inside_the_block_only():
    run = TaskRun("model", KnnOptions(), None, seed=3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with run.seeded():
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_a_task_on_accelerate_takes_the_device_asked_for(mixed_precision):
    run = TaskRun("model", KnnOptions(), None, seed=0, asked_device="cpu")
    assert run.accelerate(mixed_precision).mixed_precision == mixed_precision
    assert run.device == torch.device("cpu")
    run.asked_device = "nonsense"
    with pytest.raises(UserError, match="device nonsense cannot be used"):
        run.accelerate()


@pytest.mark.parametrize("task", [knn, linear, semi_supervised, detection, segmentation])
def test_every_task_goes_through_the_shell(task, tmp_path):
    (tmp_path / "evaluation").write_text("taken")
    with pytest.raises(UserError, match="is a file; give a folder"):
        task("model", rows(1), output=tmp_path)
    with pytest.raises(UserError, match="unknown setting 'batchsize'; did you mean batch_size"):
        task("model", rows(1), batchsize=3)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "seed must be at least 0 and at most 4294967295, got -1"),
        (2**32, "seed must be at least 0 and at most 4294967295, got 4294967296"),
        (1.5, "seed must be a whole number, got 1.5"),
        ("a", "seed must be a whole number, got 'a'"),
        (None, "seed must be a whole number, got None"),
        (True, "seed must be a whole number, got True"),
    ],
)
def test_a_seed_that_is_none_is_refused_before_anything_is_read(seed, message) -> None:
    for task in (knn, linear, semi_supervised, detection, segmentation):
        with pytest.raises(ValueError) as caught:
            task("no such model", "no such data", seed=seed)
        assert str(caught.value) == message


def test_a_seed_of_numpy_is_a_seed() -> None:
    assert type(request(seed=np.int64(3)).seed) is int and request(seed=np.int64(3)).seed == 3
