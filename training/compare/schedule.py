"""Running work items: one after the other in this process, or several at once in processes of their own."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import UserError
from ..models.devices import visible_gpus
from ..runs.interruption import Interrupted, ended_by_signals
from .plan import Plan
from .work import WorkItem, do_work

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_WATCH_SECONDS = 2.0
_ending: list[BaseException] = []
"""In a process of the pool, what a signal has raised: the process does no further item."""
_at_work = threading.Event()
"""In a process of the pool, whether it does an item."""


def run_all(plan: Plan, items: list[WorkItem], jobs: int, after: Callable[[], None]) -> None:
    """Do all work items, in their order.

    Args:
        plan: The comparison.
        items: Work items with missing cells.
        jobs: Number of items at the same time; 1 works in this process, unless it sees several GPUs: a run takes one.
        after: Called whenever an item is done.

    Raises:
        UserError: an item cannot be done. Those that run at the same time are ended too.
    """
    if jobs == 1 and len(visible_gpus()) < 2:
        for item in items:
            do_work(plan, item)
            after()
        return
    plan.threads = max(1, cores() // jobs)
    earlier = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    # The maths libraries read these variables when the new processes load them.
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(plan.threads)))
    try:
        _run_in_processes(plan, items, jobs, after)
    finally:
        for name, value in earlier.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_in_processes(plan: Plan, items: list[WorkItem], jobs: int, after: Callable[[], None]) -> None:
    """Do the work items in a pool of processes, which are ended at the first error. Each gets a GPU in turn."""
    context = multiprocessing.get_context("spawn")
    count, gpus = min(jobs, len(items)), visible_gpus()
    shares, ending = context.SimpleQueue(), context.Event()
    for index in range(count):
        shares.put(gpus[index % len(gpus)] if gpus else None)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=(plan, shares, ending))
    pending: set[Future] = {pool.submit(_do_work_in_process, plan, item) for item in items}
    try:
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                after()
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the comparison was ended from outside (out of memory?); the same command continues from here"
        ) from error
    except BaseException:
        # Each child writes the checkpoint of its run before it ends. One whose disk is full fails at that, and would
        # wait for more work, which the pool, broken by the end of another child, never gives: the event ends it.
        ending.set()
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _do_work_in_process(plan: Plan, item: WorkItem) -> None:
    """Do one work item; SIGTERM lets it clean up. Between two items the signal ends the process at once.

    A pool gives each process its next items ahead, and takes what a signal raises for the result of one of them.
    """
    if _ending:
        raise _ending[0]
    _at_work.set()
    try:
        with ended_by_signals():
            do_work(plan, item)
    except (Interrupted, KeyboardInterrupt) as error:
        _ending.append(error)
        raise
    finally:
        _at_work.clear()


def _start_worker(plan: Plan, shares: Any, ending: Any) -> None:
    """Limit this process to its share of the cores and one GPU, and end it when its parent process has ended.

    Args:
        plan: The comparison.
        shares: Queue of the GPUs.
        ending: Event that the comparison ends: this process, too, unless it is at work.
    """
    gpu = shares.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA reads it when it is first used
    import cv2
    import torch

    torch.set_num_threads(plan.threads or 1)
    cv2.setNumThreads(plan.threads or 1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent and (_at_work.is_set() or not ending.is_set()):
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
