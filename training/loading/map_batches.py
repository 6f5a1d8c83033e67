"""Endless batches of a map-style data set, resumable at every batch."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import TrainingStopped, UserError
from .bad_images import BadImageCount
from .chunks import ChunkQueue, Consumed, ExampleMaker
from .map_source import MapChunks, MapSource, MixedMapSource
from .passes import batches_of_pass
from .place import Place
from .realignment import Realignment
from .workers import PREFETCH, Worker


@dataclass
class MapPosition:
    """How much a process has consumed.

    Attributes:
        pass_index: Number of the pass, from 0.
        position: Positions of this process consumed in this pass, readable or not.
        batches: Batches returned in this pass.
    """

    pass_index: int = 0
    position: int = 0
    batches: int = 0


class MapBatches:
    """Cut batches from the order of a map-style data set.

    An unreadable image is replaced by the next readable one of this process's order. A pass of n images has
    `accumulation * floor(n / (batch_size * accumulation * world_size))` batches; the positions after them (fewer than
    one global batch) replace unreadable images. If there are too few, this process's pass has fewer batches and its
    next pass begins earlier. Processes then change passes at different steps; no image is seen twice in a pass.

    Args:
        source: The data set.
        maker: Decodes the examples.
        place: The process.
        batch_size: Images per batch.
        accumulation: Batches per optimizer step.
        workers: Number of worker processes; 0 decodes in this process.
        count: Counts unreadable images.
        pin_memory: Whether the workers' chunks are copied to pinned memory.

    Attributes:
        batches_per_pass: Batches of this process in a pass without unreadable images.
        at: The position after the last batch.

    Raises:
        UserError: The data set is smaller than one global batch.
    """

    def __init__(
        self,
        source: MapSource | MixedMapSource,
        maker: ExampleMaker,
        place: Place,
        *,
        batch_size: int,
        accumulation: int,
        workers: int,
        count: BadImageCount,
        pin_memory: bool = False,
    ) -> None:
        world_size = place.world_size
        self.batches_per_pass = batches_of_pass(
            source.size, batch_size=batch_size, accumulation=accumulation, world_size=world_size, streaming=False
        )
        if self.batches_per_pass == 0:
            # Batch norm needs two images, so that a batch cannot be smaller.
            enough = source.size >= 2 * accumulation * world_size
            few = "accumulate less" if accumulation > 1 else "start fewer processes" if world_size > 1 else "add images"
            raise UserError(
                f"{source.name}: {source.size} images are fewer than one optimizer step uses: {batch_size} per batch x "
                f"{accumulation} accumulated x {world_size} processes = {batch_size * accumulation * world_size}; "
                + ("use a smaller batch" if enough else few)
            )
        self._chunks = MapChunks(source, maker, place, size=batch_size, planned=self.batches_per_pass * batch_size)
        self._batch_size, self._workers, self._count = batch_size, workers, count
        self._pin_memory = pin_memory
        self.at = MapPosition()

    @property
    def passes(self) -> float:
        """Passes consumed so far."""
        return self.at.pass_index + self.at.position / self._chunks.owned

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch, as values that JSON can hold."""
        return dict(vars(self.at))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` returned."""
        self.at = MapPosition(**state)

    def start_after(self, state: dict[str, Any]) -> None:
        """Begin the pass after the one of a position that `state_dict` returned."""
        self.at = MapPosition(state["pass_index"] + 1)

    def __iter__(self) -> Generator[dict[str, Tensor], None, None]:
        """Endless batches from the present position on."""
        processes = max(1, self._workers)
        start = (self.at.pass_index, self.at.position)
        workers = []
        try:
            realignment = Realignment(processes, PREFETCH if self._workers else 0)
            for index in range(processes):
                worker = self._chunks.worker(*start, index, processes, realignment)
                workers.append(Worker(worker, index, process=self._workers > 0, pin_memory=self._pin_memory))
            # The workers make the chunks of these spans in turn: span number i comes from worker i modulo their number.
            turns = self._chunks.spans(*start, realignment)
            while True:
                yield from self._one_pass(workers, turns, realignment)
        finally:
            for started in workers:
                started.close()

    def _one_pass(
        self, workers: list[Worker], turns: Iterator[tuple[int, tuple[int, int, int]]], realignment: Realignment
    ) -> Iterator[dict[str, Tensor]]:
        queue = ChunkQueue()
        planned, owned = self._chunks.planned, self._chunks.owned
        read = self.at.position
        while self.at.batches < self.batches_per_pass:
            while len(queue) < self._batch_size and read < owned:
                if read < planned:
                    turn, (_, first, end) = next(turns)
                    chunk = workers[turn % len(workers)].next()
                    realignment.plan(turn, self.at.pass_index, len(chunk.bad))
                else:
                    # Decode only as many as are missing: most of the positions after the planned ones are not used.
                    first, end = read, min(read + self._batch_size - len(queue), owned)
                    chunk = self._chunks.decode(self.at.pass_index, first, end)
                self._count.record([image for _, image in chunk.bad])
                queue.add(chunk, first)
                read = end
            if len(queue) < self._batch_size:
                break
            batch, consumed = queue.take(self._batch_size)
            self._consume(consumed)
            self.at.batches += 1
            if self.at.batches == self.batches_per_pass:
                self.at = MapPosition(self.at.pass_index + 1)
                yield batch
                return
            yield batch
        if self.at.batches == 0 and not self.at.position:
            raise TrainingStopped(
                f"{self._chunks.source.name}: of {owned} images in a pass of this process fewer than one batch of "
                f"{self._batch_size} can be read{self._count.examples()}"
            )
        self._consume(queue.drain())
        self.at = MapPosition(self.at.pass_index + 1)

    def _consume(self, consumed: list[Consumed]) -> None:
        for chunk, chunk_first, first, end in consumed:
            self._count.count(end - first, chunk.bad_before(end) - chunk.bad_before(first))
            self.at.position = chunk_first + end
