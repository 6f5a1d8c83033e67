"""Streams as shards that can be opened anywhere: `datasets.IterableDataset`s and torch's iterable data sets."""

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from ..data.columns import KEY, URL, check_image_column, own_column, without_decoding
from ..data.iterable import stream_size
from ..data.mixing import Mixture
from ..data.order import stable_hash
from ..errors import UserError
from .chunks import PASS_THROUGH_KEY
from .stream_reader import MixedReader, StreamReader

_FEW_SHARDS = 64


class StreamSource:
    """A stream, or a mixture of streams, as readers for workers.

    Args:
        dataset: A `datasets.IterableDataset`, a `mixing.Mixture` of them, or a torch iterable data set.
        image_column: Column of the images; None finds it.
        ready: The examples are dicts of tensors already.
        place: seed, rank, world_size of the process.

    Attributes:
        size: Examples in a pass over all of it, None if not known.
        shards: Number of shards.
    """

    def __init__(self, dataset: Any, image_column: str | None, ready: bool, place: dict[str, int]) -> None:
        parts = dataset.datasets if isinstance(dataset, Mixture) else [dataset]
        self._place = dict(place)
        if isinstance(dataset, Mixture):
            self._place["seed"] = stable_hash("mixture", place["seed"], dataset.seed)
        self._weights = dataset.weights if isinstance(dataset, Mixture) else None
        self._parts = [
            StreamPart(part, own_column(part, image_column) if len(parts) > 1 else image_column, ready)
            if _is_datasets(part)
            else TorchPart(part)
            for part in parts
        ]
        self.name = " + ".join(part.name for part in self._parts)
        sizes = [part.size for part in self._parts]
        self.size = None if None in sizes else sum(sizes)
        self.shards = [part.shards for part in self._parts]

    def reader(self, worker: int, workers: int) -> Any:
        """What one worker of the process reads: a `StreamReader` or a `MixedReader`."""
        place = self._place
        if self._weights is None:
            return StreamReader(self._parts, place, worker, workers)
        readers = [StreamReader([part], place, worker, workers, label) for label, part in enumerate(self._parts)]
        return MixedReader(readers, self._weights, [part.name for part in self._parts], place, worker)


class StreamPart:
    """The shards of one `datasets.IterableDataset`.

    Shuffling is the loader's: a shuffle buffer of `datasets` forgets what it holds when its state is saved, so
    `.shuffle()` at the end of the stream is undone, and anywhere else refused.

    Args:
        dataset: The stream.
        image_column: Column of the images; None finds it.
        ready: The examples are dicts of tensors already.

    Raises:
        UserError: No image column; a `.shuffle()` that cannot be undone.
    """

    def __init__(self, dataset: Any, image_column: str | None, ready: bool) -> None:
        dataset = _unshuffled(dataset)
        self.name = str(dataset.info.dataset_name or dataset.info.builder_name or "stream")
        self.size = stream_size(dataset)
        self.column: str | None = None
        if not ready:
            self.column = check_image_column(dataset, image_column)
            keys = [key for key in (KEY, URL) if key in (dataset.column_names or [])]
            dataset = without_decoding(dataset, self.column, *keys)
        self._dataset = dataset
        self.shards = dataset.num_shards
        self._halves: dict[tuple[int, int, int], Any] = {}

    def open(self, shard: int, state: dict | None) -> "ShardReader":
        """A reader of one shard, from its start or from a state of an earlier reader."""
        # A new object each time: a state that was loaded once would come back at every later iteration.
        return _DatasetsReader(self._shard(shard), state)

    def _shard(self, shard: int) -> Any:
        """One shard. `datasets` cuts all to get one (0.1 s for 12,800): halves are cut first, and kept."""
        dataset, first, count = self._dataset, 0, self.shards
        while count > _FEW_SHARDS:
            longer = count - count // 2  # of two contiguous halves the first is the longer
            half = int(shard >= first + longer)
            if (first, count, half) not in self._halves:
                self._halves[first, count, half] = dataset.shard(num_shards=2, index=half)
            dataset = self._halves[first, count, half]
            first, count = (first + longer, count - longer) if half else (first, longer)
        return dataset.shard(num_shards=count, index=shard - first)

    def describe(self, example: Any, shard: int, index: int) -> tuple[Any, str, str]:
        """(image, source, key) of an example."""
        image = example if self.column is None else example[self.column]
        source = key = None
        if isinstance(example, dict):
            source, key = example.get(URL), example.get(KEY)
        if (
            key is None
            and isinstance(image, dict)
            and image.get("bytes") is None
            and isinstance(image.get("path"), str)
        ):
            key = image["path"]
        return image, source or self.name, key or f"shard {shard} example {index}"


class TorchPart:
    """A torch iterable data set: one shard; continuing reads over what was consumed."""

    shards = 1

    def __init__(self, dataset: Any) -> None:
        self.name = type(dataset).__name__
        self.size = None
        self._dataset = dataset

    def open(self, shard: int, state: dict | None) -> "ShardReader":
        return _SkippingReader(self._dataset, state)

    def describe(self, example: Any, shard: int, index: int) -> tuple[Any, str, str]:
        if isinstance(example, dict) and PASS_THROUGH_KEY not in example and "image" in example:
            example = example["image"]
        return example, self.name, f"example {index}"


class ShardReader:
    """Reads one shard; `count` examples have been read since its start."""

    count: int

    def __init__(self) -> None:
        self.count = 0

    def read(self) -> Any:
        """The next example, None at the end."""
        example = next(self._examples, None)
        if example is not None:
            self.count += 1
        return example

    def state(self) -> dict:
        """Where the reader is, as plain JSON."""
        return {"count": self.count}

    _examples: Iterator


class _DatasetsReader(ShardReader):
    def __init__(self, dataset: Any, state: dict | None) -> None:
        self._dataset = dataset
        self.count = 0
        if state and state["count"]:
            self.count = state["count"]
            dataset.load_state_dict(copy.deepcopy(state["stream"]))
        self._examples = iter(dataset)

    def state(self) -> dict:
        if self.count == 0:
            return {"count": 0}
        return {"count": self.count, "stream": json.loads(json.dumps(self._dataset.state_dict(), default=int))}


class _SkippingReader(ShardReader):
    def __init__(self, dataset: Any, state: dict | None) -> None:
        self.count = state["count"] if state else 0
        self._examples = itertools.islice(iter(dataset), self.count, None)


def is_stream(dataset: Any) -> bool:
    """Whether a data set is read as a stream: it is iterable and has no rows to ask for."""
    if isinstance(dataset, Mixture):
        return dataset.streaming
    return _is_datasets(dataset) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def _is_datasets(dataset: Any) -> bool:
    import datasets

    return isinstance(dataset, datasets.IterableDataset)


def _unshuffled(dataset: Any) -> Any:
    """The stream without a final `.shuffle()`, and without `split_dataset_by_node`: the loader does both itself."""
    from datasets import iterable_dataset as internals

    shuffles = (internals.BufferShuffledExamplesIterable, internals.InterleavedShardsExamplesIterable)
    inner = dataset._ex_iterable
    while isinstance(inner, shuffles):
        inner = inner.ex_iterable
    if any(isinstance(part, shuffles) for part in _nested(inner)):
        raise UserError(
            "this stream was shuffled and then changed; the loader shuffles by itself, in a way that can be continued "
            "exactly: give it the stream without .shuffle()"
        )
    if inner is dataset._ex_iterable and dataset._distributed is None:
        return dataset
    plain = copy.copy(dataset)
    plain._ex_iterable, plain._distributed = inner, None
    return plain


def _nested(iterable: Any) -> Iterator[Any]:
    yield iterable
    for child in (getattr(iterable, "ex_iterable", None), *getattr(iterable, "ex_iterables", ())):
        if child is not None:
            yield from _nested(child)
