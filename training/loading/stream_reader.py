"""Reading the shards of one worker in a pass: a few open at a time, in turn, exact to continue anywhere."""

from typing import Any

from ..data.order import uniform, view_seed
from ..errors import UserError
from .chunks import RawExample
from .shards import Unit, deal_shards, shard_order

OPEN_SHARDS = 8
"""Shards that a worker reads in turn, so that a sorted data set does not come class by class."""


class StreamReader:
    """The examples of one worker, pass after pass, undecoded.

    Args:
        parts: `StreamPart`s; their shards make one pool.
        place: seed, rank, world_size of the process.
        worker: Number of this worker.
        workers: Number of workers of the process.
        label: Distinguishes the orders of several readers of one worker.
    """

    def __init__(self, parts: list[Any], place: dict, worker: int, workers: int, label: int = 0) -> None:
        self._pool = [(part, shard) for part in parts for shard in range(part.shards)]
        self._place, self._worker, self._workers, self._label = place, worker, workers, label
        self.start(0)

    def start(self, pass_index: int) -> None:
        """Go to the start of a pass."""
        self.pass_index = pass_index
        seed, rank, world_size = self._place["seed"], self._place["rank"], self._place["world_size"]
        shards = shard_order(len(self._pool), seed, self._label, pass_index)
        self._units = deal_shards(shards, rank, world_size, self._worker, self._workers)
        self._next_unit = self._turn = 0
        self._open: list[_UnitReader] = []
        self._fill()

    def read(self) -> RawExample | None:
        """The next example; None at the end of the pass."""
        while self._open:
            found = self._open[self._turn].read()
            if found is None:
                del self._open[self._turn]
                self._fill()
                self._turn = self._turn % max(1, len(self._open))
                continue
            self._turn = (self._turn + 1) % len(self._open)
            example, shard, index = found
            part, within = self._pool[shard]
            image, source, key = part.describe(example, within, index)
            seed = view_seed(self._place["seed"], self.pass_index, self._label, shard, index)
            return RawExample(image, seed, source, key)
        return None

    def state(self) -> dict:
        """Where the reader is, as plain JSON."""
        return {
            "pass": self.pass_index,
            "next_unit": self._next_unit,
            "turn": self._turn,
            "open": [reader.state() for reader in self._open],
        }

    def restore(self, state: dict) -> None:
        """Go to where a reader was."""
        self.start(state["pass"])
        self._open = [_UnitReader(self, self._units[saved["unit"]], saved["unit"], saved) for saved in state["open"]]
        self._next_unit, self._turn = state["next_unit"], state["turn"]

    def open_shard(self, shard: int, state: dict | None) -> Any:
        part, within = self._pool[shard]
        return part.open(within, state)

    def _fill(self) -> None:
        while len(self._open) < OPEN_SHARDS and self._next_unit < len(self._units):
            self._open.append(_UnitReader(self, self._units[self._next_unit], self._next_unit))
            self._next_unit += 1


class _UnitReader:
    """Reads the examples of one unit."""

    def __init__(self, stream: StreamReader, unit: Unit, number: int, saved: dict | None = None) -> None:
        self._stream, self._unit, self._number = stream, unit, number
        self._at = saved["at"] if saved else 0
        self._counted = saved["counted"] if saved else 0
        self._shard_state = saved["shard"] if saved else None
        self._shard: Any = None

    def read(self) -> tuple[Any, int, int] | None:
        """(example, shard, index in the shard), None at the end."""
        unit = self._unit
        while True:
            found = self._advance()
            if found is None:
                return None
            count = self._counted - 1
            if count % unit.step == unit.offset:
                # Only complete groups count, and only the end of the group tells that it is complete.
                while self._counted % unit.group:
                    if self._advance() is None:
                        return None
                return found

    def state(self) -> dict:
        shard = self._shard.state() if self._shard is not None else self._shard_state
        return {"unit": self._number, "at": self._at, "counted": self._counted, "shard": shard}

    def _advance(self) -> tuple[Any, int, int] | None:
        shards = self._unit.shards
        while self._at < len(shards):
            if self._shard is None:
                self._shard = self._stream.open_shard(shards[self._at], self._shard_state)
            index = self._shard.count
            example = self._shard.read()
            if example is not None:
                self._counted += 1
                return example, shards[self._at], index
            self._shard = self._shard_state = None
            self._at += 1
        return None


class MixedReader:
    """Examples of several readers by weight; endless, each source passing at its own pace.

    Args:
        readers: One per source.
        weights: Probability of each source, summing to 1.
        names: Names of the sources, for messages.
        place: seed, rank, world_size of the process.
        worker: Number of this worker.
    """

    def __init__(
        self, readers: list[StreamReader], weights: list[float], names: list[str], place: dict, worker: int
    ) -> None:
        self._readers, self._weights, self._names = readers, weights, names
        self._label = ("mix", place["seed"], place["rank"], worker)
        self._drawn = 0
        self.pass_index = 0

    def start(self, pass_index: int) -> None:
        """Go to the start; there is one pass, which has no end."""
        self.pass_index, self._drawn = pass_index, 0
        for reader in self._readers:
            reader.start(0)

    def read(self) -> RawExample:
        """The next example of a source drawn by weight.

        Raises:
            UserError: A source has no examples for this worker.
        """
        choice = self._choose(uniform(*self._label, self._drawn))
        self._drawn += 1
        reader = self._readers[choice]
        for _ in range(2):
            example = reader.read()
            if example is not None:
                return example
            reader.start(reader.pass_index + 1)
        raise UserError(f"{self._names[choice]}: no images for a worker; it has fewer images than there are workers")

    def state(self) -> dict:
        return {"pass": self.pass_index, "drawn": self._drawn, "readers": [reader.state() for reader in self._readers]}

    def restore(self, state: dict) -> None:
        self.pass_index, self._drawn = state["pass"], state["drawn"]
        for reader, saved in zip(self._readers, state["readers"], strict=True):
            reader.restore(saved)

    def _choose(self, draw: float) -> int:
        total = 0.0
        for choice, weight in enumerate(self._weights):
            total += weight
            if draw < total:
                return choice
        return max(range(len(self._weights)), key=self._weights.__getitem__)
