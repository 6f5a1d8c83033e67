"""Features that several processes have extracted, gathered in the first one in the order of a single process."""

from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..models.feature_rows import BLOCK_VALUES
from .features import FeaturePart


def gathered(part: FeaturePart, group: Any) -> FeaturePart | None:
    """Put the parts of all processes together. Every process must call it.

    Besides the whole, the first process holds its own part and one block of another's.

    Args:
        part: From `extract_part`; its features are given up.
        group: Of all processes, for tensors in main memory.

    Returns:
        In the first process, what `extract_part` returns for a single process; None in the others.
    """
    own = (part.labels, part.bad, {name: values.shape[1] for name, values in part.features.items()})
    facts: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(own, facts, dst=0, group=group)
    if facts is None:
        for values in part.features.values():
            for block in _blocks(values):
                dist.send(block.contiguous(), dst=0, group=group)
        return None
    widths: dict[str, int] = next((found[2] for found in facts if found[2]), {})
    labels, bad = _in_turn([found[0] for found in facts]), _in_turn([found[1] for found in facts])
    rows = _rows(labels, len(facts))
    whole = {name: torch.empty(sum(map(len, rows)), width) for name, width in widths.items()}
    for name, target in whole.items():
        for process, places in enumerate(rows):
            mine = part.features.pop(name, torch.empty(0, widths[name])) if process == 0 else None
            for first, chosen in _places(places, widths[name]):
                if mine is None:
                    block = torch.empty(len(chosen), widths[name])
                    dist.recv(block, src=process, group=group)
                else:
                    block = mine[first : first + len(chosen)]
                target[chosen] = block
    return FeaturePart(whole, labels, bad)


def _in_turn(lists: list[list[Any]]) -> list[Any]:
    """Undo the dealing out of batches: the first of each process, the second of each, ..."""
    longest = max(map(len, lists))
    return [entries[number] for number in range(longest) for entries in lists if number < len(entries)]


def _rows(labels: list[list[Any]], processes: int) -> list[Tensor]:
    """For each process, the rows of the whole that its images have; batches in the order of a single process."""
    ends = list(accumulate(map(len, labels)))
    ranges = [torch.arange(end - len(batch), end) for batch, end in zip(labels, ends, strict=True)]
    return [torch.cat([torch.arange(0), *ranges[process::processes]]) for process in range(processes)]


def _blocks(values: Tensor) -> tuple[Tensor, ...]:
    return values.split(_step(values.shape[1])) if len(values) else ()


def _places(rows: Tensor, width: int) -> list[tuple[int, Tensor]]:
    """Rows in the blocks in which `_blocks` sends them, each with the number of its first image."""
    step = _step(width)
    return [(first, rows[first : first + step]) for first in range(0, len(rows), step)]


def _step(width: int) -> int:
    return max(1, BLOCK_VALUES // width)
