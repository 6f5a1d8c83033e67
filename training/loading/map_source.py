"""Reading a map-style data set by row, undecoded, in the order of a pass, on one process of several."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..data.columns import KEY, URL, check_image_column, without_decoding
from ..data.internals import table_rows
from ..data.order import PassOrders, rank_positions, view_seed
from ..files import bytes_or_path
from .chunks import PASS_THROUGH_KEY, Chunk, ExampleMaker, RawExample
from .place import Place
from .realignment import Realignment


class MapSource:
    """A data set with a length, read by row without decoding.

    Args:
        dataset: A `datasets.Dataset`, or any object with `__len__` and `__getitem__` whose items are dicts.
        image_column: Column of the images; None detects it.
        ready: Whether the items are dicts of tensors, which are used as they are.
        seed: Seed of the orders.
        label: Makes the orders of several sources differ.

    Attributes:
        size: Number of rows.
        name: Name of the data set, for messages.
        orders: The order of each pass.
    """

    def __init__(
        self, dataset: Any, image_column: str | None = None, ready: bool = False, *, seed: int = 0, label: int = 0
    ) -> None:
        import datasets

        self.size = len(dataset)
        self.name = source_name(dataset)
        self._batched = isinstance(dataset, datasets.Dataset) and not ready
        self._rows: Any = None
        self.orders = PassOrders(self.size, seed, label)
        self._column: str | None = None
        self._dataset = dataset
        if self._batched:
            self._column = check_image_column(dataset, image_column)
            self._rows = table_rows(dataset)
            keys = [key for key in (KEY, URL) if key in dataset.column_names]
            self._dataset = without_decoding(dataset, self._column, *keys)
        elif not ready:
            self._column = image_column

    def read(self, rows: list[int]) -> list[tuple[Any, str, str]]:
        """Undecoded (image, source, key) of each row."""
        if not self._batched:
            images = [self._image_of(self._dataset[row]) for row in rows]
            return [(image, self.name, self._key(image, row)) for image, row in zip(images, rows, strict=True)]
        columns = self._dataset[rows]
        images = columns[self._column]
        keys = columns.get(KEY) or [self._key(image, row) for image, row in zip(images, rows, strict=True)]
        return list(zip(images, columns.get(URL) or [self.name] * len(rows), keys, strict=True))

    def identity(self, row: int) -> tuple[int, ...]:
        """The numbers from which the seed of a row's views is hashed."""
        return (row,)

    def draw(self, pass_index: int, positions: range) -> list[tuple[int, int]]:
        """(row, pass of that row) at `positions` of a pass's order."""
        order = self.orders.of(pass_index)
        return [(int(row), pass_index) for row in order[positions.start : positions.stop : positions.step]]

    def _image_of(self, item: Any) -> Any:
        if isinstance(item, dict) and PASS_THROUGH_KEY not in item:
            column = self._column or next((name for name in ("image", "img") if name in item), None)
            return item if column is None else item[column]
        return item[0] if isinstance(item, (tuple, list)) else item

    def _key(self, image: Any, row: int) -> str:
        path = bytes_or_path(image)
        if path and isinstance(path, (str, os.PathLike)):
            return str(path)
        return f"row {self._rows[row].as_py() if self._rows is not None else row}"


class MixedMapSource:
    """Several `MapSource`s as one, with the same interface.

    Args:
        sources: The sources.
        weights: Probability of each; None takes each example of each source once per pass.
        seed: Seed of the order in which they are mixed.

    Attributes:
        size: Number of rows of all sources together.
        name: Names of the sources, for messages.
    """

    def __init__(self, sources: Sequence[MapSource], weights: Sequence[float] | None, seed: int) -> None:
        self.sources = sources
        sizes = [source.size for source in sources]
        self.size = sum(sizes)
        self.name = " + ".join(source.name for source in sources)
        self._counts = sizes if weights is None else apportion(self.size, weights)
        self._first_row = np.cumsum([0, *sizes])
        self._first_slot = np.cumsum([0, *self._counts])
        self._orders = PassOrders(self.size, seed, "mix")

    def read(self, rows: list[int]) -> list[tuple[Any, str, str]]:
        """Undecoded (image, source, key) of each row; rows are counted across the sources."""
        owners = [self.identity(row) for row in rows]
        examples: list[Any] = [None] * len(rows)
        for number, source in enumerate(self.sources):
            mine = [index for index, (owner, _) in enumerate(owners) if owner == number]
            for index, example in zip(mine, source.read([owners[index][1] for index in mine]), strict=True):
                examples[index] = example
        return examples

    def identity(self, row: int) -> tuple[int, int]:
        """(source, row of the source)."""
        source = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return source, row - int(self._first_row[source])

    def draw(self, pass_index: int, positions: range) -> list[tuple[int, int]]:
        """(row, pass of its source) at `positions` of a pass's order."""
        order = self._orders.of(pass_index)
        drawn = []
        for slot in order[positions.start : positions.stop : positions.step]:
            number = int(np.searchsorted(self._first_slot, slot, side="right")) - 1
            source = self.sources[number]
            turn = pass_index * self._counts[number] + int(slot) - int(self._first_slot[number])
            source_pass, position = divmod(turn, source.size)
            row = int(source.orders.of(source_pass)[position])
            drawn.append((int(self._first_row[number]) + row, source_pass))
        return drawn


class MapChunks:
    """The positions of one process in the passes over a map-style data set, cut into chunks.

    Process r of W owns positions r, r + W, r + 2W, ... of each pass's order. Chunks cover the first `planned` of them.
    The rest (fewer than a global batch over all processes) only replaces unreadable images.

    Args:
        source: The data set.
        maker: Decodes the examples.
        place: The process.
        size: Positions per chunk.
        planned: Positions of this process that every pass uses.

    Attributes:
        owned: Positions of this process in each pass.
    """

    def __init__(
        self, source: MapSource | MixedMapSource, maker: ExampleMaker, place: Place, *, size: int, planned: int
    ) -> None:
        self.source, self.maker, self.place, self.size, self.planned = source, maker, place, size, planned
        self.owned = rank_positions(source.size, place.rank, place.world_size)

    def spans(
        self, pass_index: int, position: int, realignment: Realignment
    ) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """Endless (turn, (pass, first, end)) of the chunks from a position on, counted among this process's positions.

        All of a process's workers read the same `realignment`, and so divide the positions alike.
        """
        turn = 0
        while True:
            while position < self.planned:
                end = min(position + realignment.length(turn, pass_index, self.size), self.planned)
                yield turn, (pass_index, position, end)
                turn, position = turn + 1, end
            pass_index, position = pass_index + 1, 0

    def decode(self, pass_index: int, first: int, end: int) -> Chunk:
        """The chunk of positions first ... end - 1 of this process."""
        rank, step = self.place.rank, self.place.world_size
        drawn = self.source.draw(pass_index, range(rank + first * step, rank + end * step, step))
        raw = self.source.read([row for row, _ in drawn])
        return self.maker.chunk(
            (
                RawExample(image, view_seed(self.place.seed, row_pass, *self.source.identity(row)), name, key)
                for (image, name, key), (row, row_pass) in zip(raw, drawn, strict=True)
            ),
            pass_index=pass_index,
        )

    def worker(
        self, pass_index: int, position: int, worker: int, workers: int, realignment: Realignment
    ) -> Callable[[], Iterator[Chunk]]:
        """A function that yields every `workers`-th chunk from a position on; call it in the worker's process."""
        return _MapWorker(self, (pass_index, position, realignment), worker, workers)


class _MapWorker:
    def __init__(self, chunks: MapChunks, start: tuple[int, int, Realignment], worker: int, workers: int) -> None:
        self.chunks, self.start, self.turn = chunks, start, (worker, workers)

    def __call__(self) -> Iterator[Chunk]:
        worker, workers = self.turn
        for turn, span in self.chunks.spans(*self.start):
            if turn % workers == worker:
                yield self.chunks.decode(*span)


def source_name(dataset: Any) -> str:
    """The name of a data set in lists of unreadable images."""
    info = getattr(dataset, "info", None)
    name = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    return str(name or type(dataset).__name__)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Split a whole number by weights, by the method of largest remainders.

    Args:
        total: Number to split.
        weights: Shares; they sum to 1.

    Returns:
        One whole number per weight; they sum to `total`, and each differs from its share by less than 1.
    """
    shares = np.asarray(weights, dtype=np.float64) * total
    counts = np.floor(shares).astype(np.int64)
    for index in np.argsort(counts - shares, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return [int(count) for count in counts]
