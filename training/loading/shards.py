"""Which process and which worker reads which shards of a stream, and in which order, so that none is read twice."""

from dataclasses import dataclass

from ..data.order import generator


@dataclass(frozen=True)
class Unit:
    """What one worker reads in one go: shards, or every `step`-th example of them.

    Attributes:
        shards: Numbers of the shards, read one after the other.
        step: Of the examples of all shards, counted through, those with count % step == offset are taken.
        offset: See `step`.
        group: Examples come in groups of this many, one per process; an incomplete last group is left out, so that all
            processes get equally many.
    """

    shards: tuple[int, ...]
    step: int = 1
    offset: int = 0
    group: int = 1


def deal_shards(shards: list[int], rank: int, world_size: int, worker: int, workers: int) -> list[Unit]:
    """The units of one worker of one process.

    Every process gets floor(shards / world_size) whole shards. The rest (all, if there are fewer shards than processes)
    is read by every process, which takes each world_size-th example of it: a number of shards that is a multiple of
    the number of processes is read fastest. The process's workers share its units in the same way, except that of the
    rest each worker reads one unit only and takes every k-th example of it, k being the workers that share it.

    Args:
        shards: All shards, in the order of this pass.
        rank: Number of the process.
        world_size: Number of processes.
        worker: Number of the worker in its process.
        workers: Number of workers of each process.
    """
    whole = len(shards) // world_size * world_size
    units = [Unit((shard,)) for shard in shards[:whole][rank::world_size]]
    if whole < len(shards):
        units.append(Unit(tuple(shards[whole:]), world_size, rank, world_size))
    whole = len(units) // workers * workers
    mine = units[:whole][worker::workers]
    rest = units[whole:]
    if rest:
        unit = rest[worker % len(rest)]
        sharing = len(range(worker % len(rest), workers, len(rest)))
        place = worker // len(rest)
        mine.append(Unit(unit.shards, unit.step * sharing, unit.offset + unit.step * place, unit.group))
    return mine


def shard_order(count: int, seed: int, label: int, pass_index: int) -> list[int]:
    """The order of the shards of source `label` in a pass, the same for all processes."""
    return generator("shards", seed, label, pass_index).permutation(count).tolist()
