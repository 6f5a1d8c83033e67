"""One split rewritten into shards: images in parallel, rows in order, shard by shard."""

import itertools
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.iterable import DamagedShard
from ..errors import BadImageError, UserError
from ..images.value_range import check_range
from ..loading.bad_images import BadImage, BadImageCount, is_bad_image, one_line
from .columns import Columns
from .image import PreparedImage, prepare_image
from .options import PrepareOptions
from .record import PreparationFolder, ShardRecord, part_of
from .rows import SourceRows
from .shards import SUFFIXES, Row, image_path, write_shard

_MOST_IMAGES, _SHARDS_WANTED, _FEWEST_IMAGES = 2000, 64, 16
# Images that are read ahead of the slowest, for each that is worked on.
_AHEAD = 3


@dataclass(frozen=True)
class _Work:
    """One image under way."""

    number: int
    row: dict[str, Any]
    made: Future[PreparedImage]


def images_per_shard(asked: int | None, size: int | None) -> int:
    """Images of the source per shard: so many that a small split too has shards for many workers.

    Args:
        asked: What the user gave.
        size: Images of the split; None if unknown.
    """
    if asked is not None or size is None:
        return asked or _MOST_IMAGES
    return min(_MOST_IMAGES, max(_FEWEST_IMAGES, -(-size // _SHARDS_WANTED)))


class SplitWriter:
    """Writes the shards of one split.

    A shard covers the same images of the source in every run, so an interrupted run goes on after its last whole shard.

    Args:
        split: Name of the split.
        rows: Its images.
        columns: The columns to write.
        root: Folder of the source, for the images' paths.
        folder: Where the shards are written.
        options: From the command line.
        count: Lists this split's unreadable images, and stops if there are too many.
    """

    def __init__(
        self,
        split: str,
        rows: SourceRows,
        columns: Columns,
        root: Path,
        folder: PreparationFolder,
        options: PrepareOptions,
        count: BadImageCount,
    ) -> None:
        self._split, self._rows, self._columns, self._root = split, rows, columns, root
        self._folder, self._options, self._count = folder, options, count
        asked = options.image_range
        self._range = None if asked is None else check_range(asked, "image_range")
        self._shard_images = images_per_shard(options.shard_images, rows.size)
        self._seen: set[str] = set()

    def write(self, pool: ThreadPoolExecutor, workers: int, bar: Any) -> list[ShardRecord]:
        """Write the shards that are missing.

        Args:
            pool: Where images are decoded and encoded; OpenCV and Pillow do so without the interpreter's lock.
            workers: Its threads.
            bar: A progress bar over images.

        Returns:
            The records of all shards, also of those that were there.

        Raises:
            TooManyBadImages: see `BadImageCount`; the shards so far stay.
        """
        records = self._finished()
        for record in records:
            self._count_bad(record)
        position = sum(record.images for record in records)
        bar.initial = position
        bar.update(position)
        work = self._work(self._rows.after(position), pool, workers * _AHEAD + 1)
        while images := list(itertools.islice(self._counted(work, bar), self._shard_images)):
            records.append(self._write_shard(len(records), position, images))
            position += len(images)
            self._count_bad(records[-1])
        self._count.finish()
        return records

    def _count_bad(self, record: ShardRecord) -> None:
        """Count a whole shard, so that one that is there is not made again after a stop."""
        self._count.record(record.bad)
        self._count.count(record.images, len(record.bad))

    def _finished(self) -> list[ShardRecord]:
        records: list[ShardRecord] = []
        while (record := self._folder.shard(self._name(len(records)))) is not None:
            records.append(record)
            self._seen.update(record.keys)
        return records

    def _name(self, shard: int) -> str:
        return f"{self._split}-{shard:05d}{SUFFIXES[self._options.format]}"

    def _work(
        self, rows: Iterator[tuple[int, dict[str, Any]]], pool: ThreadPoolExecutor, ahead: int
    ) -> Iterator[_Work]:
        """Images in order, a few of which are worked on in advance; a row waits without its image's bytes."""
        waiting: deque[_Work] = deque()
        for number, row in rows:
            image = row[self._columns.image]
            if isinstance(image, DamagedShard):
                waiting.append(_Work(number, row, _refused(f"the rest of this shard cannot be read: {image.reason}")))
                continue
            made = pool.submit(prepare_image, image, self._options.short_side, self._options.quality, self._range)
            path = image.get("path") if isinstance(image, dict) else image
            waiting.append(_Work(number, {**row, self._columns.image: {"path": path}}, made))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting

    def _counted(self, work: Iterator[_Work], bar: Any) -> Iterator[tuple[_Work, PreparedImage | BadImage]]:
        """Each image when it is finished, so that a shard waits with small files and not with large ones."""
        for item in work:
            try:
                result: PreparedImage | BadImage = item.made.result()
            except Exception as error:
                if not is_bad_image(error):
                    raise
                result = BadImage(*self._rows.named(item.number, item.row), one_line(error))
            bar.update()
            yield item, result

    def _write_shard(self, shard: int, first: int, images: list[tuple[_Work, PreparedImage | BadImage]]) -> ShardRecord:
        record = ShardRecord(self._name(shard), images=len(images))
        rows = []
        for position, (work, image) in enumerate(images, start=first):
            if isinstance(image, BadImage):
                record.bad.append(image)
                continue
            key = image.key.hex()
            record.keys.append(key)
            record.source_bytes += image.source_bytes
            if key in self._seen:
                record.duplicates += 1
                if self._options.drop_duplicates:
                    continue
            self._seen.add(key)
            columns = {name: work.row[name] for name in self._columns.features if name != self._columns.image}
            path = image_path(work.row[self._columns.image]["path"], self._root)
            rows.append(Row(f"{self._split}-{position:09d}", path, image.data, columns))
            record.kept += image.kept
            record.written_bytes += len(image.data)
        record.written = len(rows)
        try:
            if rows:
                write_shard(part_of(self._folder.path / record.name), rows, self._columns, self._options.format)
            self._folder.add(record)
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0)
            raise UserError(
                f"{self._folder.path / record.name} cannot be written: {reason}; the same command goes on from there"
            ) from error
        return record


def _refused(reason: str) -> Future[PreparedImage]:
    """The work on an image that cannot be read."""
    made: Future[PreparedImage] = Future()
    made.set_exception(BadImageError(reason))
    return made
