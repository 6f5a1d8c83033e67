"""From raw examples to chunks of stacked views: what a data worker hands to the training process.

A chunk is a run of consecutive positions of a deterministic order. It holds the views of its good images, stacked, says
which positions were good, and names the bad ones. Batches are cut from chunks by `ChunkQueue`.
"""

import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .bad_images import BadImage, is_bad_image, one_line

PASS_THROUGH_KEY = "pixel_values"


class RawExample(NamedTuple):
    """One undecoded example.

    Attributes:
        image: Encoded bytes, a path, {"bytes", "path"}, or for ready examples the dict of tensors.
        seed: Seed of its views.
        source: Data set or shard, for the list of bad images.
        key: File, WebDataset key or row, for the list of bad images.
    """

    image: Any
    seed: int
    source: str
    key: str


@dataclass
class Chunk:
    """Consecutive positions of one order, decoded.

    Attributes:
        tensors: Name -> tensor (good, ...), empty when no image was good.
        offsets: Offset from the chunk's first position of each good image, rising.
        length: Number of positions, good or bad.
        bad: (offset, image) of each unreadable image.
        pass_index: Pass the positions belong to.
        last: The worker's pass ends after this chunk (streams only).
        marks: (offset, state, skip): from `offset` on, positions are found again by `state` and skipping `skip`
            (streams only).
    """

    tensors: dict[str, Tensor]
    offsets: list[int]
    length: int
    bad: list[tuple[int, BadImage]]
    pass_index: int = 0
    last: bool = False
    marks: list[tuple[int, dict, int]] = field(default_factory=list)

    def bad_before(self, offset: int) -> int:
        """How many of the positions before `offset` are bad."""
        return sum(position < offset for position, _ in self.bad)


class ExampleMaker:
    """Turn raw examples into dicts of tensors, and runs of them into chunks.

    Args:
        transform: `transform(image, seed=...)` giving a dict of tensors; None when examples are dicts of tensors
            already. A transform that takes no `seed` is called with Python's, NumPy's and torch's global generators
            seeded, and put back afterwards.
    """

    def __init__(self, transform: Callable[..., dict[str, Any]] | None) -> None:
        self.transform = transform
        self._takes_seed = transform is None or _takes_seed(transform)

    def make(self, raw: RawExample) -> dict[str, Tensor]:
        """The tensors of one example. Whatever decoding raises passes through."""
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
        """Decode `examples` in order; unreadable images are named, everything else that goes wrong is raised."""
        good: list[dict[str, Tensor]] = []
        offsets: list[int] = []
        bad: list[tuple[int, BadImage]] = []
        length = 0
        for offset, raw in enumerate(examples):
            length += 1
            try:
                good.append(self.make(raw))
                offsets.append(offset)
            except Exception as error:
                if not is_bad_image(error):
                    raise
                bad.append((offset, BadImage(raw.source, raw.key, one_line(error))))
        return Chunk(stack(good), offsets, length, bad, **fields)


def stack(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack dicts of equal tensors; in a worker process straight into shared memory, which saves a copy.

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
                storage = first._typed_storage()._new_shared(size, device=first.device)
                out = first.new(storage).resize_(len(tensors), *first.size())
            stacked[name] = torch.stack(tensors, out=out)
        except (KeyError, RuntimeError) as error:
            shapes = sorted({str(tuple(e[name].shape)) if name in e else "absent" for e in examples})
            if len(shapes) == 1:
                raise
            raise UserError(f"`{name}` differs among the examples of a batch: {', '.join(shapes[:5])}") from error
    return stacked


class ChunkQueue:
    """Chunks in order, from which batches of good images are cut."""

    def __init__(self) -> None:
        self._parts: deque[tuple[Chunk, Any]] = deque()
        self._good = 0
        self._taken = self._until = 0  # of the first chunk: good images and positions consumed

    def __len__(self) -> int:
        """Number of good images waiting."""
        return self._good

    def add(self, chunk: Chunk, tag: Any = None) -> None:
        """Append a chunk; `tag` comes back from `take` with it."""
        self._parts.append((chunk, tag))
        self._good += len(chunk.offsets)

    def take(self, count: int) -> tuple[dict[str, Tensor], list[tuple[Chunk, Any, int, int]]]:
        """Take the next `count` good images, of at least as many waiting.

        Returns:
            The stacked tensors, and for every chunk touched (chunk, tag, first offset, end offset): the positions
            consumed, which end with the last image taken. So where a batch ends does not depend on the chunks.
        """
        pieces: list[dict[str, Tensor]] = []
        consumed: list[tuple[Chunk, Any, int, int]] = []
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

    def drain(self) -> list[tuple[Chunk, Any, int, int]]:
        """Drop what is left; returns the positions dropped, as `take` does."""
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
    """Read the bytes of an image that a remote stream gives only by address (`zip://...`, `hf://...`, `https://...`)."""
    if isinstance(image, dict) and image.get("bytes") is None and "://" in str(image.get("path")):
        from datasets.utils.file_utils import xopen

        with xopen(image["path"], "rb") as file:
            return file.read()
    return image


def _takes_seed(transform: Callable) -> bool:
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.name == "seed" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _with_global_seed(transform: Callable, image: Any, seed: int) -> dict[str, Any]:
    """Call a transform that draws from the global generators, and put their states back."""
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
