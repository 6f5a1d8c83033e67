"""`ViewLoader`: endless batches of views for one process, in an order that can be continued exactly anywhere."""

import os
from collections.abc import Callable, Iterator
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
from .stream_batches import StreamBatches
from .stream_source import StreamSource, is_stream

_STATE_VERSION = 1


class ViewLoader:
    """Batches of views of a data set, pass after pass, for ever.

    The sequence of batches is a function of the data set, `seed`, `rank`, `world_size`, `batch_size` and
    `accumulation` (for streams also of `num_workers` and `shuffle_buffer`). For each pass the order differs. The
    seed of an example's views is a hash of `seed`, the pass and the example: not of workers, processes or resuming.

    Map-style: one permutation per pass, dealt to the processes like cards. A pass is
    floor(n / (batch_size * accumulation * world_size)) optimizer steps.

    Streams: shards are permuted per pass and dealt to processes and their workers; every worker interleaves a few open
    shards and permutes blocks of `shuffle_buffer` undecoded examples. A pass ends for a process when all its workers
    are through; fewer than `batch_size` images are dropped there.

    Unreadable images: see `bad_images`; a batch takes the next good example of the order.

    Args:
        dataset: A `datasets.Dataset`, a `datasets.IterableDataset`, a mixture (`mixing.mix_streams`), or any torch
            data set whose items are dicts of tensors with `pixel_values`.
        transform: `transform(image, seed=int)` giving a dict of tensors, for instance a `TwoViewTransform`; None for
            items that are tensors already.
        batch_size: Images per batch.
        accumulation: Batches per optimizer step.
        seed: Seed of orders and views.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Worker processes of this process; 0 decodes in it.
        image_column: Column of the images; None finds it.
        max_bad_fraction: Largest share of unreadable images.
        bad_images_file: Where they are listed (JSON lines); None lists them nowhere.
        shuffle_buffer: Undecoded examples that each worker of a stream holds and permutes.

    Raises:
        UserError: No image column, fewer images than one optimizer step uses, or a number out of range.
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
        bad_images_file: str | os.PathLike | None = None,
        shuffle_buffer: int = 2048,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("accumulation", accumulation), ("world_size", world_size)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if num_workers < 0 or shuffle_buffer < 1 or not 0 <= rank < world_size:
            raise UserError(
                f"num_workers ({num_workers}) must be at least 0, shuffle_buffer ({shuffle_buffer}) at least 1, and "
                f"rank ({rank}) in 0 ... {world_size - 1}"
            )
        self.dataset, self.transform, self.batch_size = dataset, transform, batch_size
        maker = ExampleMaker(transform)
        place = {"seed": seed, "rank": rank, "world_size": world_size}
        common = {"batch_size": batch_size, "workers": num_workers}
        self._setting = {**place, "batch_size": batch_size}
        if is_stream(dataset):
            stream = StreamSource(dataset, image_column, ready=_is_ready(dataset, transform), place=place)
            self.count = BadImageCount(max_bad_fraction, bad_images_file, stream.size, world_size == 1)
            self._batches: Any = StreamBatches(stream, maker, place, buffer=shuffle_buffer, count=self.count, **common)
            # Who reads what depends on the number of workers; none and one read alike.
            self._setting |= {"kind": "stream", "workers": max(1, num_workers), "shuffle_buffer": shuffle_buffer}
            self._setting |= {"shards": stream.shards}
        else:
            source = _map_source(dataset, image_column, _is_ready(dataset, transform), seed)
            self.count = BadImageCount(max_bad_fraction, bad_images_file, source.size, world_size == 1)
            self._batches = MapBatches(source, maker, place, accumulation=accumulation, count=self.count, **common)
            self._setting |= {"kind": "map", "accumulation": accumulation, "images": source.size}
        self._open: Iterator | None = None

    @property
    def batches_per_pass(self) -> int | None:
        """Batches of this process in a pass without unreadable images; None where that is not known."""
        return self._batches.batches_per_pass

    @property
    def passes(self) -> float:
        """Passes consumed so far."""
        return self._batches.passes

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Endless batches from the present position on; an iterator from before ends its workers."""
        self.close()
        self._open = iter(self._batches)
        return self._open

    def close(self) -> None:
        """End the worker processes; iterating again goes on from the present position."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def state_dict(self) -> dict:
        """The position after the last batch handed out, of this process; plain JSON."""
        return {
            "version": _STATE_VERSION,
            "setting": dict(self._setting),
            "images_seen": self.count.seen,
            "images_bad": self.count.bad,
            "position": self._batches.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a position; call before iterating.

        Raises:
            UserError: The state is of another data set, seed, batch size or number of processes.
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
            if saved.get(name) != value
        ]
        if differing:
            raise UserError(f"cannot continue at the same image: {'; '.join(differing)}")
        self.count.seen, self.count.bad = state["images_seen"], state["images_bad"]
        self._batches.load_state_dict(state["position"])


def _is_ready(dataset: Any, transform: Callable | None) -> bool:
    """Whether the items are dicts of tensors that pass through."""
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


def _map_source(dataset: Any, image_column: str | None, ready: bool, seed: int) -> Any:
    if not isinstance(dataset, MapMixture):
        return MapSource(dataset, image_column, ready, seed=seed)
    seed = stable_hash("mixture", seed, dataset.seed)
    sources = [
        MapSource(part, own_column(part, image_column), ready, seed=seed, label=number)
        for number, part in enumerate(dataset.datasets)
    ]
    return MixedMapSource(sources, dataset.weights, seed)
