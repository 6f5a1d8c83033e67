"""Each job of a comparison gets a GPU of its own."""

import os
import queue
import signal
import threading
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from ladder_training.compare import schedule
from ladder_training.models.devices import visible_gpus
from ladder_training.runs.interruption import Interrupted


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [(None, 3, ["0", "1", "2"]), ("4, 6", 2, ["4", "6"]), ("GPU-ab,MIG-cd,2", 2, ["GPU-ab", "MIG-cd"]), (None, 0, [])],
)
def test_gpus_have_the_names_that_this_process_sees_them_by(monkeypatch, named, count, expected) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == expected


class Pool:
    """Stands for the pool of processes; writes down the GPU that each process would take."""

    taken: ClassVar[list[Any]] = []

    def __init__(self, count: int, *, mp_context: Any, initializer: Any, initargs: Any) -> None:
        shares = initargs[1]
        Pool.taken = [shares.get() for _ in range(count)]

    def submit(self, work: Any, *args: Any) -> Any:
        from concurrent.futures import Future

        future: Future = Future()
        future.set_result(None)
        return future

    def shutdown(self, **_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("gpus", "jobs", "expected"),
    [
        (["0", "1"], 4, ["0", "1", "0", "1"]),
        (["5", "7", "9"], 2, ["5", "7"]),
        (["0", "1"], 1, ["0"]),
        ([], 2, [None] * 2),
    ],
)
def test_jobs_take_the_gpus_in_turn(monkeypatch, gpus, jobs, expected) -> None:
    """Also a single job on a machine of several GPUs: a run that sees more than one is refused."""
    monkeypatch.setattr(schedule, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", Pool)
    done: list[int] = []
    plan = SimpleNamespace(threads=None)
    schedule.run_all(plan, [object()] * 4, jobs, lambda: done.append(1))
    assert Pool.taken == expected
    assert len(done) == 4


def test_a_process_sees_its_own_gpu_only(monkeypatch) -> None:
    shares: queue.SimpleQueue = queue.SimpleQueue()
    shares.put("3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    schedule._start_worker(SimpleNamespace(threads=1), shares, threading.Event())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize("error", [Interrupted(signal.SIGTERM), KeyboardInterrupt()])
def test_a_process_that_was_asked_to_end_begins_with_nothing_more(monkeypatch, error: BaseException) -> None:
    """The pool had given it an item ahead: the comparison ended only when that was done, perhaps hours later."""
    begun: list[str] = []

    def work(plan: Any, item: str) -> None:
        begun.append(item)
        if item == "second":
            raise error

    monkeypatch.setattr(schedule, "_ending", [])
    monkeypatch.setattr(schedule, "do_work", work)
    schedule._do_work_in_process(None, "first")
    for item in ("second", "third", "fourth"):
        with pytest.raises(type(error)):
            schedule._do_work_in_process(None, item)
    assert begun == ["first", "second"]


def test_a_process_without_work_ends_when_the_comparison_does(monkeypatch) -> None:
    """It waited for ever for more work of a broken pool, where a full disk had let its last checkpoint fail."""
    shares: queue.SimpleQueue = queue.SimpleQueue()
    shares.put(None)
    ending, ended = threading.Event(), []
    schedule._at_work.set()

    def sleep(seconds: float) -> None:
        ended.append("waits")
        if ending.is_set():
            schedule._at_work.clear()
        ending.set()

    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: thread.run())
    monkeypatch.setattr(schedule, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(os, "_exit", ended.append)
    schedule._start_worker(SimpleNamespace(threads=1), shares, ending)
    assert ended == ["waits", "waits", 1], "first while the comparison goes on, then until the item is done"
