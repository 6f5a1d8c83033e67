"""Run a function in several processes that form a gloo group, forked so that nothing is imported again."""

import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


def run_together(work: Callable[[int], Any], count: int = 2, seconds: float = 60, *, group: bool = True) -> list[Any]:
    """Call `work(rank)` in `count` processes at once.

    Returns:
        For each rank the result, or the exception that was raised.

    Raises:
        TimeoutError: A process did not end: it hangs in a collective operation, for example.
        RuntimeError: A process died.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_child, args=(work, rank, count, port if group else None, pipes[rank][1]), daemon=False)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    until, results = time.monotonic() + seconds, []
    try:
        for rank, (receiver, sender) in enumerate(pipes):
            sender.close()
            if not receiver.poll(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"process {rank} did not end within {seconds} seconds")
            try:
                results.append(pickle.loads(receiver.recv_bytes()))
            except EOFError:
                raise RuntimeError(f"process {rank} died") from None
    finally:
        for process in processes:
            process.join(2 if len(results) == count else 0)
            if process.is_alive():
                process.kill()
                process.join()
    return results


def run_apart(work: Callable[[], Any], seconds: float = 60) -> Any:
    """Call `work` in a process of its own, and return its result or raise its error.

    torch refuses to differentiate after a fork of a process that has used a GPU, a fake one included. Tests that do
    that do it apart, so that `run_together` works after them.
    """
    result = run_together(lambda rank: work(), 1, seconds, group=False)[0]
    if isinstance(result, Exception):
        raise result
    return result


def _child(work: Callable[[int], Any], rank: int, count: int, port: int | None, sender: Connection) -> None:
    if port is not None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    import torch
    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    try:
        if port is not None:
            dist.init_process_group("gloo", rank=rank, world_size=count)
        result: Any = work(rank)
    except Exception as error:
        traceback.print_exc()
        result = error
    try:
        sender.send_bytes(pickle.dumps(result))
    except Exception as error:
        sender.send_bytes(pickle.dumps(RuntimeError(f"the result cannot be sent: {error}")))
    sender.close()
    os._exit(0)
