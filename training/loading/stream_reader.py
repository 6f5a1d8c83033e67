"""Reading the shards of one worker in a pass: a few open at a time, in turn, resumable at every example."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..data.order import uniform, view_seed
from ..errors import UserError
from .bad_images import BadImage
from .chunks import RawExample
from .place import Place
from .shards import Assignment, deal_shards, shard_order

OPEN_SHARDS = 8
"""Shards that a worker reads in turn, so that a sorted data set does not come class by class."""


class ShardReader(Protocol):
    """Reads one shard from front to back.

    Attributes:
        count: Examples read since the start of the shard.
    """

    count: int

    def read(self) -> Any:
        """The next example; None at the end."""

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""


class Part(Protocol):
    """One source of a stream.

    Attributes:
        name: For messages.
        size: Number of examples; None if unknown.
        shards: Number of shards.
        damaged: Files that could not be opened, and are in no shard.
    """

    name: str
    size: int | None
    shards: int
    damaged: list[BadImage]

    def open(self, shard: int, state: dict[str, Any] | None) -> ShardReader:
        """A reader of one shard, from its start or from the state of an earlier reader."""

    def describe(self, example: Any, shard: int, index: int) -> tuple[Any, str, str]:
        """(undecoded image, source, key) of an example."""


class StreamReader:
    """The undecoded examples of one worker, pass after pass.

    Args:
        parts: The sources; their shards make one pool.
        place: The process.
        worker: Number of this worker.
        workers: Number of workers of the process.
        label: Makes the orders of several readers of one worker differ.
    """

    def __init__(self, parts: Sequence[Part], place: Place, worker: int, workers: int, label: int = 0) -> None:
        self._pool = [(part, shard) for part in parts for shard in range(part.shards)]
        self._place, self._worker, self._workers, self._label = place, worker, workers, label
        self.start(0)

    def start(self, pass_index: int) -> None:
        """Go to the start of a pass."""
        self.pass_index = pass_index
        shards = shard_order(len(self._pool), self._place.seed, self._label, pass_index)
        self._assignments = deal_shards(shards, self._place, self._worker, self._workers)
        self._next = self._turn = 0
        self._open: list[_AssignmentReader] = []
        self._fill()

    def read(self) -> RawExample | None:
        """The next example; None at the end of the pass."""
        while self._open:
            item = self._open[self._turn].read()
            if item is None:
                del self._open[self._turn]
                self._fill()
                self._turn = self._turn % max(1, len(self._open))
                continue
            self._turn = (self._turn + 1) % len(self._open)
            example, shard, index = item
            part, within = self._pool[shard]
            image, source, key = part.describe(example, within, index)
            seed = view_seed(self._place.seed, self.pass_index, self._label, shard, index)
            return RawExample(image, seed, source, key)
        return None

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""
        return {
            "pass": self.pass_index,
            "next_unit": self._next,
            "turn": self._turn,
            "open": [reader.state() for reader in self._open],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the position that `state` returned."""
        self.start(state["pass"])
        self._open = [
            _AssignmentReader(self, self._assignments[saved["unit"]], saved["unit"], saved) for saved in state["open"]
        ]
        self._next, self._turn = state["next_unit"], state["turn"]

    def open_shard(self, shard: int, state: dict[str, Any] | None) -> ShardReader:
        """A reader of one shard of the pool, from its start or from the state of an earlier reader."""
        part, within = self._pool[shard]
        return part.open(within, state)

    def _fill(self) -> None:
        while len(self._open) < OPEN_SHARDS and self._next < len(self._assignments):
            self._open.append(_AssignmentReader(self, self._assignments[self._next], self._next))
            self._next += 1


class _AssignmentReader:
    """Reads the examples of one assignment."""

    def __init__(
        self, stream: StreamReader, assignment: Assignment, number: int, saved: dict[str, Any] | None = None
    ) -> None:
        self._stream, self._assignment, self._number = stream, assignment, number
        self._at: int = saved["at"] if saved else 0
        self._counted: int = saved["counted"] if saved else 0
        self._shard_state: dict[str, Any] | None = saved["shard"] if saved else None
        self._shard: ShardReader | None = None

    def read(self) -> tuple[Any, int, int] | None:
        """(example, shard, index in the shard); None at the end."""
        assignment = self._assignment
        while True:
            item = self._advance()
            if item is None:
                return None
            count = self._counted - 1
            if count % assignment.step == assignment.offset:
                # Only complete groups count: read to the end of the group to know that this one is.
                while self._counted % assignment.group:
                    if self._advance() is None:
                        return None
                return item

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""
        shard = self._shard.state() if self._shard is not None else self._shard_state
        return {"unit": self._number, "at": self._at, "counted": self._counted, "shard": shard}

    def _advance(self) -> tuple[Any, int, int] | None:
        shards = self._assignment.shards
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
    """Examples drawn from several readers by weight, without end; each source starts its next pass on its own.

    Args:
        readers: One per source.
        weights: Probability of each source; they sum to 1.
        names: Names of the sources, for messages.
        place: The process.
        worker: Number of this worker.
    """

    def __init__(
        self,
        readers: Sequence[StreamReader],
        weights: Sequence[float],
        names: Sequence[str],
        place: Place,
        worker: int,
    ) -> None:
        self._readers, self._weights, self._names = readers, weights, names
        self._label = ("mix", place.seed, place.rank, worker)
        self._drawn = 0
        self.pass_index = 0

    def start(self, pass_index: int) -> None:
        """Go to the start of the only pass, which never ends."""
        self.pass_index, self._drawn = pass_index, 0
        for reader in self._readers:
            reader.start(0)

    def read(self) -> RawExample:
        """The next example of a source drawn by weight.

        Raises:
            UserError: The source has no examples for this worker.
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

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""
        return {"pass": self.pass_index, "drawn": self._drawn, "readers": [reader.state() for reader in self._readers]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the position that `state` returned."""
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
