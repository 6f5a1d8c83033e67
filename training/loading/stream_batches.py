"""Endless batches of a stream, resumable at every batch: blocks of undecoded examples are read, permuted and decoded.

A shuffle buffer that is refilled example by example can only be resumed if its content is saved. Here a worker reads a
block of `shuffle_buffer` examples and permutes it by (seed, pass, process, worker, block). To resume, it reads that
block again from the state of the stream at the block's start, and skips the consumed examples without decoding them.
"""

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..data.order import generator
from ..errors import UserError
from .bad_images import BadImageCount
from .chunks import Chunk, ChunkBuilder, ChunkQueue, Consumed, ExampleMaker, RawExample
from .passes import batches_of_pass
from .place import Place
from .stream_reader import MixedReader, StreamReader
from .stream_source import StreamSource
from .workers import Worker


def start_of_pass(pass_index: int) -> dict[str, Any]:
    """A worker's position at the start of a pass (see `BlockWorker`)."""
    return {"pass": pass_index, "consumed": 0, "block": 0, "skip": 0, "reader": None, "in_chunk": [0, 0]}


def _in_chunk(position: dict[str, Any], size: int) -> tuple[int, int]:
    """Examples and readable examples consumed of the present chunk; earlier versions ended chunks by position alone."""
    ended = position["consumed"] % size
    positions, readable = position.get("in_chunk", (ended, ended))
    return positions, readable


class BlockWorker:
    """One worker of a stream; called in its process, it yields chunks without end.

    Its position is {"pass", "consumed": examples consumed in this pass, "block": number of the block, "skip": examples
    consumed of the block, "reader": state of the stream at the start of the block, None at the start of the pass,
    "in_chunk": examples and readable examples consumed of the present chunk}.

    Args:
        make_reader: `make_reader(worker, workers)` returns a `StreamReader` or `MixedReader`.
        maker: Decodes the examples.
        place: The process.
        size: Positions per chunk.
        buffer: Examples per block.
        worker: Number of this worker.
        workers: Number of workers of the process.
        position: Where to start.
    """

    def __init__(
        self,
        make_reader: Callable[[int, int], StreamReader | MixedReader],
        maker: ExampleMaker,
        place: Place,
        *,
        size: int,
        buffer: int,
        worker: int,
        workers: int,
        position: dict[str, Any],
    ) -> None:
        self.make_reader, self.maker, self.place, self.size, self.buffer = make_reader, maker, place, size, buffer
        self.worker, self.workers, self.position = worker, workers, position

    def __call__(self) -> Iterator[Chunk]:
        """Chunks from `position` on, pass after pass."""
        reader = self.make_reader(self.worker, self.workers)
        position = self.position
        while True:
            if position["reader"] is None:
                reader.start(position["pass"])
            else:
                reader.restore(position["reader"])
            yield from self._one_pass(reader, position)
            position = start_of_pass(position["pass"] + 1)

    def _one_pass(self, reader: StreamReader | MixedReader, position: dict[str, Any]) -> Iterator[Chunk]:
        positions, readable = _in_chunk(position, self.size)
        chunk = ChunkBuilder(self.maker)
        marks: list[tuple[int, dict[str, Any], int]] = []
        for example, block, skip in self._blocks(reader, position):
            if not marks or marks[-1][1] is not block:
                marks.append((chunk.length, block, skip))
            positions, readable = positions + 1, readable + chunk.add(example)
            # A chunk has as many readable images as a batch, so that a batch is one chunk and need not be copied. A
            # chunk of unreadable ones must end too, to be counted. What was consumed of a chunk before resuming counts.
            if readable == self.size or positions == 2 * self.size:
                yield chunk.finish(pass_index=position["pass"], last=False, marks=marks)
                chunk, marks, positions, readable = ChunkBuilder(self.maker), [], 0, 0
        yield chunk.finish(pass_index=position["pass"], last=True, marks=marks)

    def _blocks(
        self, reader: StreamReader | MixedReader, position: dict[str, Any]
    ) -> Iterator[tuple[RawExample, dict[str, Any], int]]:
        """(example, start of its block, number of examples before it in the block), to the end of the pass."""
        number, skip = position["block"], position["skip"]
        ended = False
        while not ended:
            block = {"block": number, "reader": reader.state()}
            length = self._length(position["pass"], number)
            examples: list[Any] = []
            while len(examples) < length:
                example = reader.read()
                if example is None:
                    ended = True
                    break
                examples.append(example)
            order = self._generator("block", position["pass"], number).permutation(len(examples))
            for before in range(skip, len(examples)):
                index = order[before]
                example, examples[index] = examples[index], None  # the block does not keep what it has handed out
                yield example, block, before
            skip = 0
            number += 1

    def _length(self, pass_index: int, number: int) -> int:
        """Examples in a block. The first is randomly shorter, so that successive passes are cut at other examples."""
        if number:
            return self.buffer
        return self.buffer - int(self._generator("first", pass_index).integers(0, (self.buffer + 1) // 2))

    def _generator(self, what: str, *parts: int) -> np.random.Generator:
        return generator(what, self.place.seed, self.place.rank, self.worker, *parts)


class StreamBatches:
    """Cut batches from the chunks of several workers, which take turns.

    Workers that have finished their pass are skipped. When all have finished, the incomplete batch is dropped and the
    next pass begins. The batches of one optimizer step may come from two passes. Processes whose shards hold different
    numbers of images change passes at different steps.

    Args:
        source: The stream.
        maker: Decodes the examples.
        place: The process.
        batch_size: Images per batch.
        buffer: Examples per block.
        workers: Number of worker processes; 0 decodes in this process.
        count: Counts unreadable images.
        pin_memory: Whether the workers' chunks are copied to pinned memory.

    Attributes:
        batches_per_pass: Batches of this process in a pass without unreadable images; None if unknown.
    """

    def __init__(
        self,
        source: StreamSource,
        maker: ExampleMaker,
        place: Place,
        *,
        batch_size: int,
        buffer: int,
        workers: int,
        count: BadImageCount,
        pin_memory: bool = False,
    ) -> None:
        self._name, size = source.name, source.size
        self._processes, self._count, self._batch_size = workers, count, batch_size
        self._workers, self._pin_memory = max(1, workers), pin_memory
        self._block_worker = partial(
            BlockWorker, source.reader, maker, place, size=batch_size, buffer=buffer, workers=self._workers
        )
        self._own_size = None if size is None else size / place.world_size
        self.batches_per_pass = size
        if size is not None:
            self.batches_per_pass = batches_of_pass(
                size, batch_size=batch_size, accumulation=1, world_size=place.world_size, streaming=True
            )
        self._pass, self._batches, self._consumed, self._turn = 0, 0, 0, 0
        self._at = [start_of_pass(0) for _ in range(self._workers)]

    @property
    def passes(self) -> float:
        """Passes consumed so far; only whole passes if the size of the stream is unknown."""
        if all(at["pass"] > self._pass for at in self._at):
            return float(self._pass + 1)
        return self._pass + (self._consumed / self._own_size if self._own_size else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch, as values that JSON can hold."""
        return {
            "pass": self._pass,
            "batches": self._batches,
            "consumed": self._consumed,
            "turn": self._turn,
            "workers": [dict(at) for at in self._at],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` returned."""
        self._pass, self._batches = state["pass"], state["batches"]
        self._consumed, self._turn = state["consumed"], state["turn"]
        self._at = [dict(at) for at in state["workers"]]

    def start_after(self, state: dict[str, Any]) -> None:
        """Begin the pass after the one of a position that `state_dict` returned."""
        self._pass, self._batches, self._consumed, self._turn = state["pass"] + 1, 0, 0, 0
        self._at = [start_of_pass(self._pass) for _ in self._at]

    def __iter__(self) -> Generator[dict[str, Tensor], None, None]:
        """Endless batches from the present position on."""
        workers = []
        try:
            for index, at in enumerate(self._at):
                workers.append(
                    Worker(
                        self._block_worker(worker=index, position=dict(at)),
                        index,
                        process=self._processes > 0,
                        pin_memory=self._pin_memory,
                    )
                )
            while True:
                yield from self._one_pass(workers)
        finally:
            for worker in workers:
                worker.close()

    def _one_pass(self, workers: list[Worker]) -> Iterator[dict[str, Tensor]]:
        queue = ChunkQueue()
        turn = self._turn
        finished = [at["pass"] > self._pass for at in self._at]
        while True:
            while len(queue) < self._batch_size and not all(finished):
                while finished[turn]:
                    turn = (turn + 1) % len(workers)
                chunk = workers[turn].next()
                self._count.record([image for _, image in chunk.bad])
                queue.add(chunk, turn)
                finished[turn] = chunk.last
                turn = (turn + 1) % len(workers)
            if len(queue) < self._batch_size:
                break
            batch, consumed = queue.take(self._batch_size)
            self._consume(consumed)
            self._batches += 1
            yield batch
        if self._batches == 0:
            raise UserError(
                f"{self._name}: {len(queue)} images for this process in a pass of the stream, fewer than one batch of "
                f"{self._batch_size}; use a smaller batch or fewer processes{self._count.examples()}"
            )
        self._consume(queue.drain())
        self._pass, self._batches, self._consumed, self._turn = self._pass + 1, 0, 0, 0
        self._at = [start_of_pass(self._pass) for _ in workers]

    def _consume(self, consumed: list[Consumed]) -> None:
        for chunk, worker, first, end in consumed:
            self._count.count(end - first, chunk.bad_before(end) - chunk.bad_before(first))
            self._consumed += end - first
            whole = end == chunk.length
            self._turn = (worker + 1) % len(self._at) if whole else worker
            if whole and chunk.last:
                self._at[worker] = start_of_pass(chunk.pass_index + 1)
                continue
            positions, readable = (0, 0) if whole else _in_chunk(self._at[worker], self._batch_size)
            if not whole:
                bad = chunk.bad_before(end) - chunk.bad_before(first)
                positions, readable = positions + end - first, readable + end - first - bad
            offset, block, skip = max((mark for mark in chunk.marks if mark[0] <= end), key=lambda mark: mark[0])
            self._at[worker] = {
                "pass": chunk.pass_index,
                "consumed": self._at[worker]["consumed"] + end - first,
                **block,
                "skip": skip + end - offset,
                "in_chunk": [positions, readable],
            }
