"""`ladder prepare`: rewrites a data set once into shards that train fast."""

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.fields import check_fields
from ..config.shell import ladder_command
from ..data.columns import check_image_column
from ..data.internals import with_features
from ..data.prepared import write_features
from ..data.sources import data_identity, load_image_stream, split_names
from ..errors import UserError
from ..images.value_range import check_range
from ..loading.bad_images import LARGER_SHARE_GOES_ON, BadImageCount
from ..loading.depth import say_if_dark
from ..loading.progress import progress
from .columns import Columns, choose_columns
from .options import PrepareOptions
from .record import PreparationFolder, ShardRecord
from .rows import SourceRows
from .split import SplitWriter

BAD_IMAGES_FILE = "bad_images.jsonl"
SPLITS = ("train", "validation", "test")
# They do not change what is written.
_FREE = {"dataset", "output", "workers", "max_bad_fraction"}


def prepare_command(options: PrepareOptions) -> int:
    """Prepare a data set, and print what was written.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: see `prepare`.
    """
    started = time.monotonic()
    splits = prepare(options)
    for split, counts in splits.items():
        print_counts(split, counts)
    images = sum(counts["images"] for counts in splits.values())
    seconds = time.monotonic() - started
    print(f"{images:,} images in {seconds:.0f} s")
    trained_on = None if SPLITS[0] in splits else next(iter(splits))
    print(f"next: {ladder_command('pretrain', dataset=options.output, split=trained_on)}")
    return 0


def prepare(options: PrepareOptions) -> dict[str, dict[str, Any]]:
    """Rewrite a data set into shards that `load_image_stream` reads with the same columns.

    An interrupted preparation goes on after its last whole shard. The result does not depend on the number of workers.

    Args:
        options: What is prepared, and how.

    Returns:
        Split -> counts: images, written, kept, unreadable, duplicates, also_in (other split -> images in both), shards,
        source_bytes, written_bytes and left_out (column -> reason).

    Raises:
        UserError: an option does not fit, the source cannot be read or holds boxes or label maps, the folder holds
            something else, or no image of a split can be read.
        TooManyBadImages: more images of a split cannot be read than `max_bad_fraction` allows. They are listed, and the
            same options with a larger share go on.
    """
    if options.image_range is not None:
        check_range(options.image_range, "image_range")
    check_fields(options, ("short_side", "quality", "workers", "shard_images", "max_bad_fraction"))
    output, root = Path(options.output).expanduser(), Path(options.dataset).expanduser()
    if root.exists() and output.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{output} lies in {root}, which is prepared: give --output another folder")
    splits = _splits(options)
    changing = {name: value for name, value in asdict(options).items() if name not in _FREE}
    files = {split: data_identity(options.dataset, split, options.revision) for split in splits}
    asked = {"dataset": options.dataset, "files": files, "options": {**changing, "split": splits}}
    folder = PreparationFolder(output, asked)
    if folder.finished is not None:
        return folder.finished
    sources = {split: _open(options, split) for split in splits}
    folder.start()
    workers = options.workers or os.cpu_count() or 1
    written: dict[str, list[ShardRecord]] = {}
    with _Quiet(), ThreadPoolExecutor(workers) as pool:
        for split, (rows, columns) in sources.items():
            name = split if split in SPLITS else SPLITS[0]
            count = BadImageCount(
                options.max_bad_fraction,
                output / BAD_IMAGES_FILE,
                rows.size,
                alone=rows.size is not None,
                remedy=LARGER_SHARE_GOES_ON,
            )
            writer = SplitWriter(name, rows, columns, root, folder, options, count)
            try:
                with progress(None, f"preparing {split}", rows.size) as bar:
                    written[split] = writer.write(pool, workers, bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            if not sum(record.written for record in written[split]):
                bad = next(bad for record in written[split] for bad in record.bad)
                raise UserError(f"no image of the split {split!r} can be read ({bad.key}: {bad.reason})")
    records = [record for split in written.values() for record in split]
    if options.format == "webdataset":
        columns = next(iter(sources.values()))[1]
        write_features(output, columns.features, columns.image)
    counts = {split: _counts(split, written, sources[split][1]) for split in written}
    folder.finish(records, counts)
    return counts


def print_counts(split: str, counts: dict[str, Any], write: Callable[[str], Any] = print) -> None:
    """Print what was written of a split, and what was not."""
    before, after = (counts[name] / 1e6 for name in ("source_bytes", "written_bytes"))
    write(f"{split}: {counts['written']:,} of {counts['images']:,} images in {counts['shards']} shards")
    write(f"  size        {before:,.1f} MB before, {after:,.1f} MB after; {counts['kept']:,} files are as they were")
    unreadable = f"  unreadable  {counts['unreadable']:,}"
    write(unreadable + (f", listed in {BAD_IMAGES_FILE}" if counts["unreadable"] else ""))
    dropped = counts["images"] - counts["written"] - counts["unreadable"]
    write(
        f"  duplicates  {counts['duplicates']:,} of the same content" + (f", {dropped:,} left out" if dropped else "")
    )
    for other, shared in counts["also_in"].items():
        if shared:
            write(f"              {shared:,} images are in {other} too")
    for column, reason in counts["left_out"].items():
        write(f"  left out    column {column}: {reason}")


def _splits(options: PrepareOptions) -> list[str]:
    """The splits to prepare, in the order of the source."""
    there = split_names(options.dataset, revision=options.revision)
    for split in options.split or []:
        if split not in there:
            raise UserError(f"{options.dataset}: no split {split!r}; its splits are: {', '.join(there)}")
    splits = [split for split in there if split in (options.split or there)]
    unusual = [split for split in splits if split not in SPLITS]
    if unusual and len(splits) > 1:
        raise UserError(
            f"{options.dataset}: the split {unusual[0]!r} is none of {', '.join(SPLITS)}, which files of shards can "
            f"name: choose with --split; a single split of another name becomes {SPLITS[0]}"
        )
    return splits


def _open(options: PrepareOptions, split: str) -> tuple[SourceRows, Columns]:
    dataset = load_image_stream(
        options.dataset,
        split,
        options.streaming,
        revision=options.revision,
        image_column=options.image_column,
        trust_paths=options.trust_paths,
    )
    dataset = with_features(dataset)
    image = check_image_column(dataset, options.image_column)
    columns = choose_columns(dict(dataset.features), image, options.drop_columns or [], options.format)
    say_if_dark(options.dataset, dataset, image, options.image_range)
    return SourceRows(dataset, split, image, options.shuffle), columns


def _counts(split: str, written: dict[str, list[ShardRecord]], columns: Columns) -> dict[str, Any]:
    keys = {name: {key for record in records for key in record.keys} for name, records in written.items()}
    records = written[split]
    return {
        "images": sum(record.images for record in records),
        "written": sum(record.written for record in records),
        "kept": sum(record.kept for record in records),
        "unreadable": sum(len(record.bad) for record in records),
        "duplicates": sum(record.duplicates for record in records),
        "also_in": {other: len(keys[split] & keys[other]) for other in keys if other != split},
        "shards": sum(record.written > 0 for record in records),
        "source_bytes": sum(record.source_bytes for record in records),
        "written_bytes": sum(record.written_bytes for record in records),
        "left_out": columns.left_out,
    }


class _Quiet:
    """Silence Pillow's warnings in all threads, and keep OpenCV from starting threads inside each of ours."""

    def __enter__(self) -> None:
        import cv2

        self._threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *exc: Any) -> None:
        import cv2

        cv2.setNumThreads(self._threads)
        self._warnings.__exit__(*exc)
