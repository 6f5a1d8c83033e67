"""The images of a data set in parts that are embedded one after the other, each image with its id and label."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data.columns import KEY, check_image_column, find_label_column
from ...data.held_out import image_names
from ...data.iterable import DamagedShard, readable_examples, unopened_shards
from ...errors import BadImageError, UserError
from ...files import bytes_or_path
from ..image_transforms import CenterTransform
from ..splits import check_column, is_streaming, undecoded

AHEAD = 4
"""Images that each thread may decode in advance of the network, so that it seldom waits."""


@dataclass(frozen=True)
class Label:
    """How a data set's labels are stored.

    Attributes:
        column: Name of the column; None if there are no labels.
        names: Names of the classes; empty if the labels are not class numbers with names.
        is_text: Whether the labels are text.
    """

    column: str | None = None
    names: tuple[str, ...] = ()
    is_text: bool = False


@dataclass
class SplitRows:
    """One split, undecoded.

    Attributes:
        name: Of the split.
        dataset: `datasets` object without decoding.
        image: Column of the images.
        label: How labels are stored.
        names: Name of each image of a map-style data set; None for a stream.
        count: Number of parts.
        part_images: Images per part of a map-style data set; a part of a stream is a shard.
        by_path: Whether the paths of the images differ and are their ids.
    """

    name: str
    dataset: Any
    image: str
    label: Label
    names: list[str] | None
    count: int
    part_images: int
    by_path: bool = False

    def images_of(self, part: int) -> int | None:
        """Number of images of a part; None for a stream."""
        if self.names is None:
            return None
        return min(self.part_images, len(self.names) - part * self.part_images)

    def rows(self, part: int, root: str | None) -> Iterator[tuple[str, Any, Any]]:
        """Give (id, label, undecoded image) of each image of a part, and (file, None, `DamagedShard`) of damage in it.

        Args:
            part: Number of the part.
            root: Folder of the data set; ids of files below it are relative to it.
        """
        if self.names is not None:
            first = part * self.part_images
            chosen = self.dataset.select(range(first, min(first + self.part_images, len(self.dataset))))
        else:
            first, chosen = 0, self._shard(part)
        for position, row in enumerate(chosen):
            if isinstance(row, DamagedShard):
                yield _below(row.file or f"shard {part}", root), None, row
                continue
            if self.names is not None:
                name = row[self.image]["path"] if self.by_path else self.names[first + position]
            else:
                name = _name_in_stream(row, self.image, part, position)
            label = row[self.label.column] if self.label.column is not None else None
            yield _below(name, root), label, row[self.image]

    def _shard(self, part: int) -> Iterator[Any]:
        """The examples of a shard of a stream, then what of it, or of the whole stream, cannot be read."""
        damaged = unopened_shards(self.dataset) if part == 0 else []
        yield from readable_examples(self.dataset.shard(num_shards=self.count, index=part), damaged)
        yield from damaged

    def fingerprint(self) -> str:
        """Tell two versions of the split apart: by the names of its images, of a stream by its number of shards."""
        known = self.names if self.names is not None else [f"{self.count} shards"]
        return hashlib.blake2b("\n".join(known).encode(), digest_size=12).hexdigest()


def open_split(
    dataset: Any, name: str, *, image_column: str | None, label_column: str | None, part_images: int
) -> SplitRows:
    """Find the columns and the parts of a split.

    Args:
        dataset: `datasets` object.
        name: Of the split.
        image_column: Column of the images; None finds it.
        label_column: Column of the labels; None finds it, and there need not be one.
        part_images: Images per part.

    Raises:
        UserError: there is no such column.
    """
    image = check_image_column(dataset, image_column)
    if label_column is not None:
        check_column(dataset, label_column, "label_column")
    label = _label(dataset, label_column or find_label_column(dataset))
    key = KEY if KEY in (dataset.column_names or ()) else None
    names, by_path = None, False
    count = getattr(dataset, "num_shards", 1)
    if not is_streaming(dataset):
        names = image_names(dataset, image)
        by_path = bool(names) and not names[0].startswith("row ")
        if key is not None and len(set(dataset[key])) == len(dataset):
            names, by_path = list(dataset[key]), False
        count = -(-len(dataset) // part_images)
    rows = undecoded(dataset, image, label.column, key)
    return SplitRows(name, rows, image, label, names, count, part_images, by_path)


@dataclass(frozen=True)
class Prepared:
    """An image that is ready for the network, or the end of a part.

    Attributes:
        key: (split's number, part's number).
        name: Id of the image; None marks the end of the part.
        label: As stored.
        pixels: (3, size, size); None if the image cannot be read.
        reason: Why it cannot be read.
    """

    key: tuple[int, int]
    name: str | None = None
    label: Any = None
    pixels: Tensor | None = None
    reason: str | None = None


def prepared_rows(
    splits: list[SplitRows],
    keys: Iterable[tuple[int, int]],
    transform: CenterTransform,
    root: str | None,
    threads: int,
) -> Iterator[Prepared]:
    """Decode the images of some parts in several threads, in order; each part ends with a mark.

    Threads are enough: decoding and resizing release the interpreter's lock, and no pixel is copied between processes.

    Args:
        splits: All splits.
        keys: The parts: (split's number, part's number).
        transform: From an undecoded image to (3, size, size).
        root: See `SplitRows.rows`.
        threads: Number of threads.
    """

    def prepare(key: tuple[int, int], name: str, label: Any, image: Any) -> Prepared:
        if isinstance(image, DamagedShard):
            return Prepared(key, name, label, reason=str(image))
        try:
            return Prepared(key, name, label, transform(image))
        except BadImageError as error:
            return Prepared(key, name, label, reason=str(error))

    import cv2

    own_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image is one thread's work: OpenCV's own threads would only compete
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Prepared]] = []

        def rows() -> Iterator[Future[Prepared]]:
            for key in keys:
                for name, label, image in splits[key[0]].rows(key[1], root):
                    yield pool.submit(prepare, key, name, label, image)
                end: Future[Prepared] = Future()
                end.set_result(Prepared(key))
                yield end

        try:
            for future in rows():
                waiting.append(future)
                if len(waiting) > threads * AHEAD:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)
            cv2.setNumThreads(own_threads)


def default_threads(processes: int) -> int:
    """Threads per process, for `processes` processes on this machine: one per processor, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable // max(1, processes)))


def _label(dataset: Any, column: str | None) -> Label:
    if column is None:
        return Label()
    feature = (dataset.features or {}).get(column)
    names = getattr(feature, "names", None)
    dtype = str(getattr(feature, "dtype", ""))
    if names is None and not ("int" in dtype or "string" in dtype or dtype == "bool"):
        raise UserError(f"label_column {column!r} holds no class per image ({feature}); name another with label_column")
    return Label(column, tuple(str(name) for name in names or ()), "string" in dtype)


def _name_in_stream(row: dict[str, Any], image: str, shard: int, position: int) -> str:
    """The key of a WebDataset example, the path of a file, or its place in the stream."""
    if row.get(KEY) is not None:
        return str(row[KEY])
    stored = row[image]
    path = stored.get("path") if isinstance(stored, dict) else bytes_or_path(stored)
    return str(path) if isinstance(path, str) and path else f"shard {shard} row {position}"


def _below(name: str, root: str | None) -> str:
    """A path relative to the data set's folder if it lies in it."""
    if root is None or not name.startswith(root + os.sep):
        return name
    return Path(name).relative_to(root).as_posix()
