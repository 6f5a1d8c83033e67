"""Streams as shards that can be opened at any example: `datasets.IterableDataset`s and torch's iterable data sets."""

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset

from ..data.columns import KEY, URL, check_image_column, own_column, without_decoding
from ..data.internals import unshuffled
from ..data.iterable import DamagedShard, damaged_shard, length_of
from ..data.mixing import Mixture
from ..data.order import stable_hash
from ..data.origin import origin_of
from ..files import bytes_or_path
from .bad_images import BadImage
from .chunks import PASS_THROUGH_KEY
from .place import Place
from .stream_reader import MixedReader, Part, ShardReader, StreamReader

_FEW_SHARDS = 64


class StreamSource:
    """A stream or a mixture of streams, which gives each worker its reader.

    Args:
        dataset: A `datasets.IterableDataset`, a `mixing.Mixture` of them, or a torch iterable data set.
        image_column: Column of the images; None detects it.
        ready: Whether the examples are dicts of tensors, which are used as they are.
        place: The process.

    Attributes:
        name: Names of the streams, for messages.
        size: Number of examples in a pass of all processes; None if unknown.
        shards: Number of shards of each stream.
        damaged: Files of the streams that could not be opened, and are in no shard.
    """

    def __init__(self, dataset: Any, image_column: str | None, ready: bool, place: Place) -> None:
        parts = dataset.datasets if isinstance(dataset, Mixture) else [dataset]
        self._place = place
        if isinstance(dataset, Mixture):
            self._place = replace(place, seed=stable_hash("mixture", place.seed, dataset.seed))
        self._weights = dataset.weights if isinstance(dataset, Mixture) else None
        self._parts: list[Part] = [
            StreamPart(part, own_column(part, image_column) if len(parts) > 1 else image_column, ready)
            if _is_datasets(part)
            else TorchPart(part)
            for part in parts
        ]
        self.name = " + ".join(part.name for part in self._parts)
        sizes = [part.size for part in self._parts if part.size is not None]
        self.size = sum(sizes) if len(sizes) == len(self._parts) else None
        self.shards = [part.shards for part in self._parts]
        self.damaged = [bad for part in self._parts for bad in part.damaged]

    def reader(self, worker: int, workers: int) -> StreamReader | MixedReader:
        """What worker number `worker` of `workers` in this process reads."""
        place = self._place
        if self._weights is None:
            return StreamReader(self._parts, place, worker, workers)
        readers = [StreamReader([part], place, worker, workers, label) for label, part in enumerate(self._parts)]
        return MixedReader(readers, self._weights, [part.name for part in self._parts], place, worker)


class StreamPart:
    """The shards of one `datasets.IterableDataset`.

    The loader shuffles. The state of a shuffle buffer of `datasets` does not include the buffer's content, so a
    `.shuffle()` at the end of the stream is removed, and one anywhere else is refused.

    Args:
        dataset: The stream.
        image_column: Column of the images; None detects it.
        ready: Whether the examples are dicts of tensors, which are used as they are.

    Attributes:
        name: Name of the stream, for messages.
        size: Number of examples; None if unknown.
        column: Column of the images; None if the examples are used as they are.
        shards: Number of shards.
        damaged: Files that could not be opened, and are in no shard.

    Raises:
        UserError: There is no image column, or a `.shuffle()` that cannot be removed.
    """

    def __init__(self, dataset: Any, image_column: str | None, ready: bool) -> None:
        dataset = unshuffled(dataset)
        self.name = str(dataset.info.dataset_name or dataset.info.builder_name or "stream")
        self.size = length_of(dataset)
        self.column: str | None = None
        origin = origin_of(dataset)
        self._rule, self.damaged = origin.path_rule, [BadImage(self.name, file, why) for file, why in origin.damaged]
        if not ready:
            self.column = check_image_column(dataset, image_column)
            keys = [key for key in (KEY, URL) if key in (dataset.column_names or [])]
            dataset = without_decoding(dataset, self.column, *keys)
        self._dataset = dataset
        self.shards: int = dataset.num_shards
        self._halves: dict[tuple[int, int, int], Any] = {}

    def open(self, shard: int, state: dict[str, Any] | None) -> ShardReader:
        """A reader of one shard, from its start or from the state of an earlier reader."""
        # A new object each time: `datasets` restarts every later iteration at the state that was loaded last.
        return _DatasetsReader(self._shard(shard), state)

    def _shard(self, shard: int) -> Any:
        """One shard. `datasets` cuts all shards to return one (0.1 s for 12,800), so halves are cut first and kept."""
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
        """(undecoded image, source, key) of an example."""
        if isinstance(example, DamagedShard):
            return example, example.file or self.name, example.place or f"shard {shard} after {index} examples"
        image = example if self.column is None else example[self.column]
        if self._rule is not None and self.column is not None:
            image = self._rule.confine(image)
        source = key = None
        if isinstance(example, dict):
            source, key = example.get(URL), example.get(KEY)
        path = bytes_or_path(image)
        if key is None and isinstance(path, str):
            key = path
        return image, source or self.name, key or f"shard {shard} example {index}"


class TorchPart:
    """A torch iterable data set, as one shard. Resuming reads the consumed examples again and drops them."""

    shards = 1

    def __init__(self, dataset: Any) -> None:
        self.name = type(dataset).__name__
        self.size: int | None = None
        self.damaged: list[BadImage] = []
        self._dataset = dataset

    def open(self, shard: int, state: dict[str, Any] | None) -> ShardReader:
        """A reader of the data set, from its start or from the state of an earlier reader."""
        return _SkippingReader(self._dataset, state)

    def describe(self, example: Any, shard: int, index: int) -> tuple[Any, str, str]:
        """(undecoded image or dict of tensors, source, key) of an example."""
        if isinstance(example, dict) and PASS_THROUGH_KEY not in example and "image" in example:
            example = example["image"]
        return example, self.name, f"example {index}"


class _CountingReader:
    """Counts the examples of an iterator."""

    def __init__(self, examples: Iterator[Any], count: int) -> None:
        self._examples, self.count = examples, count

    def read(self) -> Any:
        """The next example; None at the end."""
        example = next(self._examples, None)
        if example is not None:
            self.count += 1
        return example

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""
        return {"count": self.count}


class _DatasetsReader(_CountingReader):
    """Reads a shard of a `datasets` stream. If it is damaged, its last example is a `DamagedShard`."""

    def __init__(self, dataset: Any, state: dict[str, Any] | None) -> None:
        self._dataset = dataset
        self._broken = bool(state and state.get("broken"))
        count = state["count"] if state else 0
        if state and count and not self._broken:
            dataset.load_state_dict(copy.deepcopy(state["stream"]))
        super().__init__(iter(()) if self._broken else iter(dataset), count)

    def read(self) -> Any:
        """The next example; None at the end."""
        try:
            return super().read()
        except Exception as error:
            damaged = damaged_shard(error)
            if damaged is None:
                raise
            self._broken, self._examples = True, iter(())
            self.count += 1
            return damaged

    def state(self) -> dict[str, Any]:
        """The reader's position, as values that JSON can hold."""
        if self.count == 0:
            return {"count": 0}
        if self._broken:
            return {"count": self.count, "broken": True}
        return {"count": self.count, "stream": json.loads(json.dumps(self._dataset.state_dict(), default=int))}


class _SkippingReader(_CountingReader):
    def __init__(self, dataset: Any, state: dict[str, Any] | None) -> None:
        count = state["count"] if state else 0
        super().__init__(itertools.islice(iter(dataset), count, None), count)


def is_stream(dataset: Any) -> bool:
    """Whether a data set is read as a stream: it can be iterated, but not indexed by row."""
    if isinstance(dataset, Mixture):
        return dataset.streaming
    return _is_datasets(dataset) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")


def _is_datasets(dataset: Any) -> bool:
    import datasets

    return isinstance(dataset, datasets.IterableDataset)
