"""Tests of this folder need a CUDA GPU. Where there is none, they are collected, and deselected with a reason.

`LADDER_CUDA_REHEARSAL=1` runs them on the CPU instead, except those that say `cuda(rehearse=False)`:
`benchmarks/gpu.sh --rehearse` does.
"""

import os
from collections.abc import Iterator

import pytest
import torch

REHEARSAL = os.environ.get("LADDER_CUDA_REHEARSAL") == "1"
_WHY = "no CUDA GPU here: the tests marked cuda are deselected (benchmarks/gpu.sh runs them where there is one)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run, and count it in pytest's own summary."""
    if torch.cuda.is_available():
        return
    marks = {item: item.get_closest_marker("cuda") for item in items}
    out = [item for item, mark in marks.items() if mark and not (REHEARSAL and mark.kwargs.get("rehearse", True))]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]
        config.stash[_DESELECTED] = len(out)


_DESELECTED = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why."""
    if count := config.stash.get(_DESELECTED, 0):
        terminalreporter.write_line(f"{count} deselected: {_WHY}")


@pytest.fixture
def device() -> torch.device:
    """The GPU, or the CPU in a rehearsal."""
    return torch.device("cpu" if REHEARSAL else "cuda")


@pytest.fixture
def exact() -> Iterator[None]:
    """Turns TF32 off, so that float32 on both devices can be compared."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
