"""Batches of a stream, endless, exact to resume: blocks of undecoded examples are read, permuted and decoded.

A shuffle buffer that trickles can only be continued if its content is saved. Here a worker reads a block of
`shuffle_buffer` examples and permutes it by (seed, pass, process, worker, block): to continue, it reads that block
again from the state of the stream at its start, and skips what was consumed without decoding it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ..data.order import generator
from ..errors import UserError
from .bad_images import BadImageCount
from .chunks import Chunk, ChunkQueue, ExampleMaker, RawExample
from .workers import Worker


def start_of_pass(pass_index: int) -> dict:
    """A worker's position at the start of a pass (see `BlockWorker`)."""
    return {"pass": pass_index, "consumed": 0, "block": 0, "skip": 0, "reader": None}


class BlockWorker:
    """One worker of a stream: called in its process, it yields chunks for ever.

    Its position is {"pass", "consumed": examples of this pass so far, "block": number of the block, "skip": examples of
    the block consumed, "reader": state of the stream at the start of the block, None at the start of the pass}.

    Args:
        make_reader: `make_reader(worker, workers)` gives a `StreamReader` or `MixedReader`.
        maker: Decodes.
        place: seed, rank, world_size of the process.
        size: Positions per chunk.
        buffer: Examples per block.
        worker: Number of this worker.
        workers: Number of workers of the process.
        position: Where to start.
    """

    def __init__(
        self,
        make_reader: Callable[[int, int], Any],
        maker: ExampleMaker,
        place: dict,
        *,
        size: int,
        buffer: int,
        worker: int,
        workers: int,
        position: dict,
    ) -> None:
        self.make_reader, self.maker, self.place, self.size, self.buffer = make_reader, maker, place, size, buffer
        self.worker, self.workers, self.position = worker, workers, position

    def __call__(self) -> Iterator[Chunk]:
        reader = self.make_reader(self.worker, self.workers)
        position = self.position
        while True:
            if position["reader"] is None:
                reader.start(position["pass"])
            else:
                reader.restore(position["reader"])
            yield from self._one_pass(reader, position)
            position = start_of_pass(position["pass"] + 1)

    def _one_pass(self, reader: Any, position: dict) -> Iterator[Chunk]:
        consumed = position["consumed"]
        raw: list[RawExample] = []
        marks: list[tuple[int, dict, int]] = []

        def finish(last: bool) -> Chunk:
            return self.maker.chunk(raw, pass_index=position["pass"], last=last, marks=marks)

        for example, block, place in self._blocks(reader, position):
            if not marks or marks[-1][1] is not block:
                marks.append((len(raw), block, place))
            raw.append(example)
            consumed += 1
            # Chunks lie on a fixed grid, so that the workers take turns at the same places after resuming.
            if consumed % self.size == 0:
                yield finish(last=False)
                raw, marks = [], []
        yield finish(last=True)

    def _blocks(self, reader: Any, position: dict) -> Iterator[tuple[RawExample, dict, int]]:
        """(example, start of its block, place in it) to the end of the pass."""
        number, skip = position["block"], position["skip"]
        ended = False
        while not ended:
            block = {"block": number, "reader": reader.state()}
            length = self._length(position["pass"], number)
            examples: list[RawExample] = []
            while len(examples) < length:
                example = reader.read()
                if example is None:
                    ended = True
                    break
                examples.append(example)
            order = self._generator("block", position["pass"], number).permutation(len(examples))
            for place in range(skip, len(examples)):
                index = order[place]
                example, examples[index] = examples[index], None
                yield example, block, place
            skip = 0
            number += 1

    def _length(self, pass_index: int, number: int) -> int:
        """The first block is shorter by chance, so that a pass does not cut the blocks of the one before."""
        if number:
            return self.buffer
        return self.buffer - int(self._generator("first", pass_index).integers(0, (self.buffer + 1) // 2))

    def _generator(self, what: str, *parts: int) -> Any:
        return generator(what, self.place["seed"], self.place["rank"], self.worker, *parts)


class StreamBatches:
    """Cut batches from the workers' chunks, taken in turn.

    In a pass a worker that is through is passed over; when all are, what is left, under a batch, is dropped and
    the next pass begins. An optimizer step of several batches may span two passes. Processes whose shards hold
    different numbers of images change passes at different steps.

    Args:
        source: The `StreamSource`.
        maker: Decodes.
        place: seed, rank, world_size of the process.
        batch_size: Images per batch.
        buffer: Examples per block.
        workers: Number of worker processes.
        count: Counter of bad images.
    """

    def __init__(
        self,
        source: Any,
        maker: ExampleMaker,
        place: dict[str, int],
        *,
        batch_size: int,
        buffer: int,
        workers: int,
        count: BadImageCount,
    ) -> None:
        self._name, size = source.name, source.size
        self._processes, self._count, self._batch_size = workers, count, batch_size
        self._workers = max(1, workers)
        self._block_worker = lambda worker, position: BlockWorker(
            source.reader,
            maker,
            place,
            size=batch_size,
            buffer=buffer,
            worker=worker,
            workers=self._workers,
            position=position,
        )
        self._own_size = None if size is None else size / place["world_size"]
        self.batches_per_pass = None if size is None else size // place["world_size"] // batch_size
        self._pass, self._batches, self._consumed, self._turn = 0, 0, 0, 0
        self._at = [start_of_pass(0) for _ in range(self._workers)]

    @property
    def passes(self) -> float:
        if all(at["pass"] > self._pass for at in self._at):
            return float(self._pass + 1)
        return self._pass + (self._consumed / self._own_size if self._own_size else 0.0)

    def state_dict(self) -> dict:
        return {
            "pass": self._pass,
            "batches": self._batches,
            "consumed": self._consumed,
            "turn": self._turn,
            "workers": [dict(at) for at in self._at],
        }

    def load_state_dict(self, state: dict) -> None:
        self._pass, self._batches = state["pass"], state["batches"]
        self._consumed, self._turn = state["consumed"], state["turn"]
        self._at = [dict(at) for at in state["workers"]]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        workers = [
            Worker(self._block_worker(index, dict(at)), index, process=self._processes > 0)
            for index, at in enumerate(self._at)
        ]
        try:
            while True:
                yield from self._one_pass(workers)
        finally:
            for worker in workers:
                worker.close()

    def _one_pass(self, workers: list[Worker]) -> Iterator[dict[str, Tensor]]:
        queue = ChunkQueue()
        turn = self._turn
        through = [at["pass"] > self._pass for at in self._at]
        while True:
            while len(queue) < self._batch_size and not all(through):
                while through[turn]:
                    turn = (turn + 1) % len(workers)
                chunk = workers[turn].next()
                self._count.found([image for _, image in chunk.bad])
                queue.add(chunk, turn)
                through[turn] = chunk.last
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
                f"{self._batch_size}; use a smaller batch or fewer processes"
            )
        self._consume(queue.drain())
        self._pass, self._batches, self._consumed, self._turn = self._pass + 1, 0, 0, 0
        self._at = [start_of_pass(self._pass) for _ in workers]

    def _consume(self, consumed: list) -> None:
        for chunk, worker, first, end in consumed:
            self._count.count(end - first, chunk.bad_before(end) - chunk.bad_before(first))
            self._consumed += end - first
            whole = end == chunk.length
            self._turn = (worker + 1) % len(self._at) if whole else worker
            if whole and chunk.last:
                self._at[worker] = start_of_pass(chunk.pass_index + 1)
                continue
            offset, block, place = max((mark for mark in chunk.marks if mark[0] <= end), key=lambda mark: mark[0])
            self._at[worker] = {
                "pass": chunk.pass_index,
                "consumed": self._at[worker]["consumed"] + end - first,
                **block,
                "skip": place + end - offset,
            }
