"""Which process and which worker reads which shards of a stream, and in which order, so that none is read twice."""

from dataclasses import dataclass

from ..data.order import generator
from .place import Place


@dataclass(frozen=True)
class Assignment:
    """What one worker reads in one go: whole shards, or every `step`-th example of some shards.

    Attributes:
        shards: Numbers of the shards, read one after the other.
        step: Examples are counted across all `shards`; those with count % step == offset are read.
        offset: See `step`.
        group: Examples come in groups of this many, one per process. An incomplete last group is dropped, so that all
            processes get the same number of examples.
    """

    shards: tuple[int, ...]
    step: int = 1
    offset: int = 0
    group: int = 1


def deal_shards(shards: list[int], place: Place, worker: int, workers: int) -> list[Assignment]:
    """Assign shards to one worker of one process.

    Each process gets floor(shards / world_size) whole shards. Every process reads the remaining shards (all of them, if
    there are fewer shards than processes) and keeps each world_size-th example. Reading is therefore fastest if the
    number of shards is a multiple of the number of processes. The workers of a process divide its assignments in the
    same way, except that a worker reads at most one of the remaining ones, and keeps every k-th example of it, where k
    workers share it.

    Args:
        shards: All shards, in the order of this pass.
        place: The process.
        worker: Number of the worker in its process.
        workers: Number of workers of each process.

    Returns:
        The worker's assignments, in the order in which it reads them.
    """
    whole = len(shards) // place.world_size * place.world_size
    assignments = [Assignment((shard,)) for shard in shards[:whole][place.rank :: place.world_size]]
    if whole < len(shards):
        assignments.append(Assignment(tuple(shards[whole:]), place.world_size, place.rank, place.world_size))
    whole = len(assignments) // workers * workers
    mine = assignments[:whole][worker::workers]
    rest = assignments[whole:]
    if rest:
        shared = rest[worker % len(rest)]
        sharing = len(range(worker % len(rest), workers, len(rest)))
        turn = worker // len(rest)
        mine.append(Assignment(shared.shards, shared.step * sharing, shared.offset + shared.step * turn, shared.group))
    return mine


def shard_order(count: int, seed: int, label: int, pass_index: int) -> list[int]:
    """The order of the shards of source `label` in a pass, the same for all processes."""
    return [int(shard) for shard in generator("shards", seed, label, pass_index).permutation(count)]
