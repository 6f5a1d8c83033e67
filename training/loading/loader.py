"""`ViewLoader`: endless batches of views for one process, in an order that can be resumed exactly at every batch."""

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..data.columns import own_column
from ..data.mixing import MapMixture, Mixture
from ..data.order import stable_hash
from ..errors import UserError
from .bad_images import BadImageCount
from .chunks import ExampleMaker
from .map_batches import MapBatches
from .map_source import MapSource, MixedMapSource
from .place import Place
from .stream_batches import StreamBatches
from .stream_source import StreamSource, is_stream

_STATE_VERSION = 1
_DEPEND_ON_DATA = ("images", "shards")
_REMEDY = "a run goes on with a larger max_bad_fraction"


class ViewLoader:
    """Endless batches of views of a data set, pass after pass.

    The sequence of batches is a function of the data set, `seed`, `rank`, `world_size`, `batch_size` and
    `accumulation` (for streams also of `num_workers` and `shuffle_buffer`). Each pass has another order. The seed of an
    example's views is a hash of `seed`, the pass and the example; it does not depend on workers, processes or resuming.

    Map-style: every pass has one permutation, whose positions the processes take in turn. A pass has
    floor(n / (batch_size * accumulation * world_size)) optimizer steps.

    Streams: the order of the shards is permuted in each pass, and processes and their workers divide the shards. Each
    worker reads a few open shards in turn and permutes blocks of `shuffle_buffer` undecoded examples. A process's pass
    ends when all its workers have finished; the incomplete batch is dropped.

    An unreadable image is replaced by the next readable one of the order (see `bad_images`).

    Args:
        dataset: A `datasets.Dataset`, a `datasets.IterableDataset`, a mixture (`mixing.mix_streams`), or any torch
            data set whose items are dicts of tensors with `pixel_values`.
        transform: `transform(image, seed=int)` returns a dict of tensors, for example a `TwoViewTransform`; None if the
            items are tensors already.
        batch_size: Images per batch.
        accumulation: Batches per optimizer step.
        seed: Seed of orders and views.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Worker processes of this process; 0 decodes in this process.
        image_column: Column of the images; None detects it.
        max_bad_fraction: Largest share of unreadable images, 0 to 1.
        bad_images_file: File that lists the unreadable images (JSON lines); None writes no list.
        shuffle_buffer: Undecoded examples that each worker of a stream holds and permutes.
        pin_memory: Whether the batches of workers lie in pinned memory, from which a GPU copies without the host.
        data_changed: Whether the data set is not the one that a saved position belongs to. The pass that the position
            is in then counts as done, and the next one begins.

    Attributes:
        count: Images read and images that were unreadable.

    Raises:
        UserError: There is no image column, the data set has fewer images than one optimizer step uses, or a number is
            out of range.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Callable[..., dict[str, Tensor]] | None = None,
        *,
        batch_size: int,
        accumulation: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        image_column: str | None = None,
        max_bad_fraction: float = 0.01,
        bad_images_file: str | os.PathLike[str] | None = None,
        shuffle_buffer: int = 2048,
        pin_memory: bool = False,
        data_changed: bool = False,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("accumulation", accumulation, 1),
            ("num_workers", num_workers, 0),
            ("shuffle_buffer", shuffle_buffer, 1),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, not {value}")
        place = Place(seed, rank, world_size)
        self.dataset, self.transform, self.batch_size = dataset, transform, batch_size
        maker, ready = ExampleMaker(transform), _is_ready(dataset, transform)
        self._setting: dict[str, Any] = {**asdict(place), "batch_size": batch_size}
        self._batches: StreamBatches | MapBatches
        if is_stream(dataset):
            stream = StreamSource(dataset, image_column, ready, place)
            self.count = BadImageCount(max_bad_fraction, bad_images_file, stream.size, world_size == 1, _REMEDY)
            self.count.record(stream.damaged)
            self.count.count(len(stream.damaged), len(stream.damaged))
            self._batches = StreamBatches(
                stream,
                maker,
                place,
                batch_size=batch_size,
                buffer=shuffle_buffer,
                workers=num_workers,
                count=self.count,
                pin_memory=pin_memory,
            )
            # Which worker reads which shards depends on the number of workers; 0 and 1 are the same.
            self._setting |= {"kind": "stream", "workers": max(1, num_workers), "shuffle_buffer": shuffle_buffer}
            self._setting |= {"shards": stream.shards}
        else:
            source = _map_source(dataset, image_column, ready, seed)
            self.count = BadImageCount(max_bad_fraction, bad_images_file, source.size, world_size == 1, _REMEDY)
            self._batches = MapBatches(
                source,
                maker,
                place,
                batch_size=batch_size,
                accumulation=accumulation,
                workers=num_workers,
                count=self.count,
                pin_memory=pin_memory,
            )
            self._setting |= {"kind": "map", "accumulation": accumulation, "images": source.size}
        self._data_changed = data_changed
        self._open: Generator[dict[str, Tensor], None, None] | None = None

    @property
    def batches_per_pass(self) -> int | None:
        """Batches of this process in a pass without unreadable images; None if the size of the stream is unknown."""
        return self._batches.batches_per_pass

    @property
    def passes(self) -> float:
        """Passes consumed so far."""
        return self._batches.passes

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Endless batches from the present position on; ends the workers of an earlier iterator."""
        self.close()
        self._open = iter(self._batches)
        return self._open

    def close(self) -> None:
        """Stop the worker processes; iterating again continues from the present position."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def state_dict(self) -> dict[str, Any]:
        """This process's position after the last batch, as values that JSON can hold."""
        return {
            "version": _STATE_VERSION,
            "setting": dict(self._setting),
            "images_seen": self.count.seen,
            "images_bad": self.count.bad,
            "position": self._batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` returned; call it before iterating.

        Raises:
            UserError: The state was saved with another data set, seed, batch size or number of processes.
        """
        self.close()
        if state.get("version") != _STATE_VERSION:
            raise UserError(
                f"position of the data has version {state.get('version')}, this is version {_STATE_VERSION}"
            )
        saved = state["setting"]
        differing = [
            f"{name} was {saved.get(name)}, now {value}"
            for name, value in self._setting.items()
            if saved.get(name) != value and not (self._data_changed and name in _DEPEND_ON_DATA)
        ]
        if differing:
            raise UserError(
                f"cannot continue at the same image: {'; '.join(differing)}; go on as the run was begun, or choose "
                "another --output"
            )
        self.count.seen, self.count.bad = state["images_seen"], state["images_bad"]
        if self._data_changed:
            self._batches.start_after(state["position"])
        else:
            self._batches.load_state_dict(state["position"])


def _is_ready(dataset: Any, transform: Callable[..., dict[str, Tensor]] | None) -> bool:
    """Whether the items are dicts of tensors, which are used as they are."""
    columns = getattr(dataset, "column_names", None)
    if isinstance(dataset, Mixture):
        columns = dataset.datasets[0].column_names
    ready = "pixel_values" in (columns or [])
    if transform is None and columns and not ready and getattr(dataset, "format", {}).get("type") != "custom":
        raise UserError(
            f"without a transform the data set needs a column pixel_values with views; its columns are: "
            f"{', '.join(columns)}"
        )
    return ready or transform is None


def _map_source(dataset: Any, image_column: str | None, ready: bool, seed: int) -> MapSource | MixedMapSource:
    if not isinstance(dataset, MapMixture):
        return MapSource(dataset, image_column, ready, seed=seed)
    seed = stable_hash("mixture", seed, dataset.seed)
    sources = [
        MapSource(part, own_column(part, image_column), ready, seed=seed, label=number)
        for number, part in enumerate(dataset.datasets)
    ]
    return MixedMapSource(sources, dataset.weights, seed)
