"""From undecoded examples to chunks of stacked views: what a data worker sends to the training process.

A chunk covers consecutive positions of a deterministic order. It holds the stacked views of its readable images, their
positions, and the names of the unreadable ones. `ChunkQueue` cuts batches from chunks.
"""

import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from ..data.iterable import DamagedShard
from ..errors import BadImageError, UserError
from ..files import bytes_or_path
from ..images.decode import check_trusted
from .bad_images import BadImage, is_bad_image, one_line

PASS_THROUGH_KEY = "pixel_values"


class RawExample(NamedTuple):
    """One undecoded example.

    Attributes:
        image: Encoded bytes, a path, or {"bytes", "path"}; the dict of tensors, if the data set's items are tensors.
        seed: Seed of its views.
        source: Data set or shard, for the list of unreadable images.
        key: File, WebDataset key or row, for the list of unreadable images.
    """

    image: Any
    seed: int
    source: str
    key: str


@dataclass
class Chunk:
    """The decoded examples of consecutive positions of one order.

    Attributes:
        tensors: Name -> tensor (readable images, ...); empty if no image is readable.
        offsets: Offset of each readable image from the chunk's first position, ascending.
        length: Number of positions, readable or not.
        bad: (offset, image) of each unreadable image.
        pass_index: Pass that the positions belong to.
        last: Whether the worker's pass ends with this chunk (streams only).
        marks: (offset, state, skip), one for each block in the chunk: to resume at `offset`, restore `state` and skip
            `skip` examples (streams only).
    """

    tensors: dict[str, Tensor]
    offsets: list[int]
    length: int
    bad: list[tuple[int, BadImage]]
    pass_index: int = 0
    last: bool = False
    marks: list[tuple[int, dict[str, Any], int]] = field(default_factory=list)

    def pin_memory(self) -> "Chunk":
        """The same chunk in pinned memory. The pinning thread of torch's DataLoader calls this."""
        return replace(self, tensors={name: value.pin_memory() for name, value in self.tensors.items()})

    def bad_before(self, offset: int) -> int:
        """Number of unreadable images before `offset`."""
        return sum(position < offset for position, _ in self.bad)


Consumed: TypeAlias = tuple[Chunk, int, int, int]
"""(chunk, its tag, first offset, end offset): the positions of a chunk that were consumed."""


class ExampleMaker:
    """Turn undecoded examples into dicts of tensors, and consecutive ones into chunks.

    Args:
        transform: `transform(image, seed=int)` returns a dict of tensors; None if the examples are dicts of tensors
            already. Before a transform without a `seed` argument is called, the global generators of Python, NumPy
            and torch are seeded; afterwards their states are restored.
    """

    def __init__(self, transform: Callable[..., dict[str, Any]] | None) -> None:
        self.transform = transform
        self._takes_seed = transform is None or _takes_seed(transform)

    def make(self, raw: RawExample) -> dict[str, Tensor]:
        """The tensors of one example.

        Raises:
            UserError: There is no transform, and the example is not a dict of tensors with `pixel_values`.
            BadImageError: It is not an example, but the end of a shard that is damaged.
            Exception: Whatever the transform raises.
        """
        made: dict[str, Any]
        if isinstance(raw.image, DamagedShard):
            raise BadImageError(f"the rest of this shard cannot be read: {raw.image.reason}")
        if isinstance(raw.image, dict) and PASS_THROUGH_KEY in raw.image:
            made = raw.image
        elif self.transform is None:
            raise UserError(
                f"{raw.source} {raw.key}: without a transform every example must be a dict of tensors with "
                f"`{PASS_THROUGH_KEY}`, this one {_describe(raw.image)}"
            )
        elif self._takes_seed:
            made = self.transform(fetch_remote(raw.image), seed=raw.seed)
        else:
            made = _with_global_seed(self.transform, fetch_remote(raw.image), raw.seed)
        return {name: torch.as_tensor(value) for name, value in made.items() if _is_numeric(value)}

    def chunk(self, examples: Iterable[RawExample], **fields: Any) -> Chunk:
        """Decode examples into one chunk.

        Args:
            examples: In order.
            **fields: Further fields of the `Chunk`.

        Returns:
            The chunk; unreadable images are listed in it.

        Raises:
            Exception: Any error that is not an unreadable image's (see `is_bad_image`).
        """
        building = ChunkBuilder(self)
        for raw in examples:
            building.add(raw)
        return building.finish(**fields)


class ChunkBuilder:
    """A chunk that grows example by example.

    Args:
        maker: Decodes the examples.

    Attributes:
        length: Number of examples added, readable or not.
    """

    def __init__(self, maker: ExampleMaker) -> None:
        self._maker = maker
        self._good: list[dict[str, Tensor]] = []
        self._offsets: list[int] = []
        self._bad: list[tuple[int, BadImage]] = []
        self.length = 0

    def add(self, raw: RawExample) -> bool:
        """Decode an example, and return whether it is readable.

        Raises:
            Exception: Any error that is not an unreadable image's (see `is_bad_image`).
        """
        offset, self.length = self.length, self.length + 1
        try:
            self._good.append(self._maker.make(raw))
        except Exception as error:
            if not is_bad_image(error):
                raise
            self._bad.append((offset, BadImage(raw.source, raw.key, one_line(error))))
            return False
        self._offsets.append(offset)
        return True

    def finish(self, **fields: Any) -> Chunk:
        """The chunk; `fields` are further fields of it."""
        return Chunk(stack(self._good), self._offsets, self.length, self._bad, **fields)


def stack(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack dicts of tensors of equal shapes; a worker process stacks directly into shared memory, which saves a copy.

    Args:
        examples: Dicts of tensors (...), with the same names.

    Returns:
        Name -> tensor (examples, ...); empty if there are no examples.

    Raises:
        UserError: The examples differ in names or shapes.
    """
    if not examples:
        return {}
    shared = torch.utils.data.get_worker_info() is not None
    stacked = {}
    for name, first in examples[0].items():
        try:
            tensors = [example[name] for example in examples]
            out = None
            if shared:
                size = first.numel() * len(tensors)
                storage = cast(Any, first)._typed_storage()._new_shared(size, device=first.device)
                out = first.new(storage).resize_(len(tensors), *first.size())
            stacked[name] = torch.stack(tensors, out=out)
        except (KeyError, RuntimeError) as error:
            shapes = sorted({str(tuple(e[name].shape)) if name in e else "absent" for e in examples})
            if len(shapes) == 1:
                raise
            raise UserError(f"`{name}` differs among the examples of a batch: {', '.join(shapes[:5])}") from error
    return stacked


class ChunkQueue:
    """A queue of chunks, from which batches of readable images are cut."""

    def __init__(self) -> None:
        self._parts: deque[tuple[Chunk, int]] = deque()
        self._good = 0
        self._taken = self._until = 0  # of the first chunk: readable images and positions consumed

    def __len__(self) -> int:
        """Number of readable images in the queue."""
        return self._good

    def add(self, chunk: Chunk, tag: int) -> None:
        """Append a chunk; `take` and `drain` return its `tag` with it."""
        self._parts.append((chunk, tag))
        self._good += len(chunk.offsets)

    def take(self, count: int) -> tuple[dict[str, Tensor], list[Consumed]]:
        """Take the next images from the queue.

        Args:
            count: Number of readable images, at least 1 and at most `len(self)`.

        Returns:
            Name -> tensor (count, ...), and the consumed positions of each chunk. They end with the last image taken,
            so where a batch ends does not depend on where chunks end.
        """
        pieces: list[dict[str, Tensor]] = []
        consumed: list[Consumed] = []
        copy = False
        wanted = count
        while wanted:
            chunk, tag = self._parts[0]
            start, first = self._taken, self._until
            end = min(len(chunk.offsets), start + wanted)
            wanted -= end - start
            until = chunk.length if wanted else chunk.offsets[end - 1] + 1
            consumed.append((chunk, tag, first, until))
            if end > start:
                copy = end - start < len(chunk.offsets)
                pieces.append(
                    {name: value[start:end] for name, value in chunk.tensors.items()} if copy else chunk.tensors
                )
            if until == chunk.length:
                self._drop_first()
            else:
                self._taken, self._until = end, until
        self._good -= count
        if len(pieces) > 1:
            return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}, consumed
        # A slice would keep the whole chunk alive, and in shared memory its file handle.
        return {name: value.clone() for name, value in pieces[0].items()} if copy else pieces[0], consumed

    def drain(self) -> list[Consumed]:
        """Empty the queue.

        Returns:
            The positions that were dropped.
        """
        consumed = []
        while self._parts:
            chunk, tag = self._parts[0]
            consumed.append((chunk, tag, self._until, chunk.length))
            self._drop_first()
        self._good = 0
        return consumed

    def _drop_first(self) -> None:
        self._parts.popleft()
        self._taken = self._until = 0


def fetch_remote(image: Any) -> Any:
    """Read the bytes of an image that a remote stream gives only by its address (`zip://`, `hf://`, `https://`).

    Args:
        image: An undecoded image.

    Returns:
        Its encoded bytes, if it has an address; otherwise `image` unchanged.

    Raises:
        BadImageError: The address is outside of its data set.
    """
    address = bytes_or_path(image)
    if isinstance(address, str) and "://" in address:
        check_trusted(address)
        from datasets.utils.file_utils import xopen

        with xopen(address, "rb") as file:
            return file.read()
    return image


def _takes_seed(transform: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.name == "seed" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _with_global_seed(transform: Callable[..., dict[str, Any]], image: Any, seed: int) -> dict[str, Any]:
    """Call a transform that draws from the global generators, seeded; restore their states afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            return transform(image)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float))


def _describe(image: Any) -> str:
    return f"has {sorted(image)}" if isinstance(image, dict) else f"is a {type(image).__name__}"
