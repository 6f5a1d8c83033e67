"""Batches of a map-style data set, endless, exact to resume."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import TrainingStopped, UserError
from .bad_images import BadImageCount
from .chunks import ChunkQueue, ExampleMaker
from .map_source import MapChunks
from .workers import Worker


@dataclass
class MapPosition:
    """Where a process is: everything before it has been consumed.

    Attributes:
        pass_index: Number of the pass, from 0.
        position: Positions of this process consumed in this pass, good or bad.
        batches: Batches handed out in this pass.
    """

    pass_index: int = 0
    position: int = 0
    batches: int = 0


class MapBatches:
    """Cut batches from the order of a map-style data set.

    The rule for unreadable images: a batch takes the next good image of this process's own order. A pass gives
    `accumulation * floor(n / (batch_size * accumulation * world_size))` batches; the positions left over at its end
    (fewer than one global batch) stand in for the unreadable ones. If they do not suffice, this process's pass has
    fewer batches and its next pass begins: the processes then change passes at different steps, and no image is
    seen twice in a pass.

    Args:
        source: A `MapSource` or a mixture.
        maker: Decodes.
        place: seed, rank, world_size of the process.
        batch_size: Images per batch.
        accumulation: Batches per optimizer step.
        workers: Number of worker processes.
        count: Counter of bad images.

    Raises:
        UserError: The data set is smaller than one global batch.
    """

    def __init__(
        self,
        source: Any,
        maker: ExampleMaker,
        place: dict[str, int],
        *,
        batch_size: int,
        accumulation: int,
        workers: int,
        count: BadImageCount,
    ) -> None:
        world_size = place["world_size"]
        steps = source.size // (batch_size * accumulation * world_size)
        if steps == 0:
            raise UserError(
                f"{source.name}: {source.size} images are fewer than one optimizer step uses: {batch_size} per batch x "
                f"{accumulation} accumulated x {world_size} processes = {batch_size * accumulation * world_size}; "
                "use a smaller batch"
            )
        self.batches_per_pass = steps * accumulation
        self._chunks = MapChunks(source, maker, size=batch_size, planned=self.batches_per_pass * batch_size, **place)
        self._batch_size, self._workers, self._count = batch_size, workers, count
        self.at = MapPosition()

    @property
    def passes(self) -> float:
        return self.at.pass_index + self.at.position / self._chunks.owned

    def state_dict(self) -> dict:
        return dict(vars(self.at))

    def load_state_dict(self, state: dict) -> None:
        self.at = MapPosition(**state)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        processes = max(1, self._workers)
        start = (self.at.pass_index, self.at.position)
        workers = [
            Worker(self._chunks.worker(*start, index, processes), index, process=self._workers > 0)
            for index in range(processes)
        ]
        try:
            # The workers' chunks and these spans are one sequence: this side knows what comes from where.
            turns = enumerate(self._chunks.spans(*start))
            while True:
                yield from self._one_pass(workers, turns)
        finally:
            for worker in workers:
                worker.close()

    def _one_pass(self, workers: list[Worker], turns: Iterator) -> Iterator[dict[str, Tensor]]:
        queue = ChunkQueue()
        planned, owned = self._chunks.planned, self._chunks.owned
        read = self.at.position
        while self.at.batches < self.batches_per_pass:
            while len(queue) < self._batch_size and read < owned:
                if read < planned:
                    turn, (_, first, end) = next(turns)
                    chunk = workers[turn % len(workers)].next()
                else:
                    # Only as many as are missing: what is left over at the end of a pass is not decoded for nothing.
                    first, end = read, min(read + self._batch_size - len(queue), owned)
                    chunk = self._chunks.decode(self.at.pass_index, first, end)
                self._count.found([image for _, image in chunk.bad])
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
                f"{self._batch_size} can be read"
            )
        self._consume(queue.drain())
        self.at = MapPosition(self.at.pass_index + 1)

    def _consume(self, consumed: list) -> None:
        for chunk, chunk_first, first, end in consumed:
            self._count.count(end - first, chunk.bad_before(end) - chunk.bad_before(first))
            self.at.position = chunk_first + end
