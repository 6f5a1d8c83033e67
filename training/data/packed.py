"""Parquet files and WebDataset shards as a `datasets` object; what of them is not used or cannot be read."""

import glob
import itertools
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from .columns import find_image_column
from .folder_tree import endings
from .iterable import damaged_shard
from .left_out import Account
from .origin import set_origin
from .parquet import by_row_group, common_columns, parquet_reading, read_footers
from .prepared import with_written_columns, written_features

_MOST_TRIES = 20
_MOST_MEMBERS = 5000
_END_MARK = 1024  # bytes of zeros that end an archive
_JSON_KEYS = ("label", "cls", "class")


def load_packed(
    kind: str, files: list[str], split: str, streaming: bool, cache_dir: str | None, account: Account
) -> Any:
    """Load Parquet files or WebDataset shards.

    Parquet files whose columns differ are read with the columns that all of them have. In a stream, Parquet files that
    cannot be opened are left out, and kept in the origin of the stream, whose reader counts them.

    Args:
        kind: "parquet" or "webdataset".
        files: Their paths.
        split: Name of the split.
        streaming: Whether to return a stream.
        cache_dir: Where `datasets` keeps what it converts.
        account: Gets what is left out.

    Returns:
        `datasets.Dataset` or `IterableDataset`.

    Raises:
        UserError: A file cannot be read; the message names it.
    """
    options: dict[str, Any] = parquet_reading() if kind == "parquet" and streaming else {}
    folder = Path(files[0]).parent
    if kind == "webdataset":
        options = {"features": written_features(folder)}
    damaged: dict[str, str] = {}
    footers: list[Any] = []
    if kind == "parquet":
        footers, damaged = read_footers(files)
        if damaged and (not streaming or not footers):
            file, reason = next(iter(damaged.items()))
            raise UserError(_unreadable(file, kind, reason))
        files = [file for file in files if file not in damaged]
        columns, others = common_columns(footers)
        account.add("columns that not all files have, or not of the same type", others)
        options |= {"columns": columns} if others else {}
        account.add("files that cannot be opened", list(damaged))
    dataset = _load(kind, files, split, streaming, cache_dir, options)
    if kind == "webdataset":
        _report_shard(files[0], set(dataset.column_names or ()), account)
        dataset = with_labels(with_written_columns(dataset, folder))
    elif streaming:
        dataset = by_row_group(dataset, footers)
    if kind == "webdataset":
        cut = cut_archives(files)
        account.add("archives without an end mark: what was cut off after their last file", list(cut))
        damaged |= cut if streaming else {}
    if damaged:
        set_origin(dataset, damaged=tuple(damaged.items()))
    return dataset


def _load(
    kind: str, files: list[str], split: str, streaming: bool, cache_dir: str | None, options: dict[str, Any]
) -> Any:
    """Call `datasets.load_dataset`, which learns the columns of a stream from its first shard."""
    import datasets

    failures: list[UserError] = []
    # A shard that cannot be read at its start is moved to the end, where the reader of the stream meets and counts it.
    for turn in range(min(len(files), _MOST_TRIES) if streaming else 1):
        ordered = [*files[turn:], *files[:turn]]
        try:
            return datasets.load_dataset(
                kind,
                data_files={split: [_escape(file) for file in ordered]},
                split=split,
                streaming=streaming,
                cache_dir=cache_dir,
                **options,
            )
        except Exception as error:
            found = damaged_shard(error)
            message = (
                _unreadable(ordered[0], kind, _root_cause(error))
                if found is None
                else _unreadable(found.file or ordered[0], kind, found.reason, found.place)
            )
            failures.append(UserError(message))
            failures[-1].__cause__ = error
    raise failures[0]


def _unreadable(file: str, kind: str, reason: str, place: str = "") -> str:
    where = f" ({place})" if place else ""
    return f"{file}: cannot be read as {kind}: {reason}{where}"


def cut_archives(files: list[str]) -> dict[str, str]:
    """Archives that were cut between two files, and the reason: a reader takes such an end for the end."""
    return {file: "the archive has no end mark: it was cut" for file in files if _is_cut(file)}


def _is_cut(file: str) -> bool:
    try:
        with Path(file).open("rb") as archive:
            size = archive.seek(0, os.SEEK_END)
            archive.seek(max(0, size - _END_MARK))
            if not archive.read().strip(b"\0"):
                return False
        with tarfile.open(file) as tar:
            ends = max((member.offset_data + member.size for member in tar), default=0)
        return 0 < ends <= size
    except (tarfile.TarError, OSError, EOFError):
        return False  # the reader of the shard meets it


def _report_shard(file: str, columns: set[str], account: Account) -> None:
    """Note which files at the beginning of the first shard are in no column, by their endings."""
    unused: list[str] = []
    try:
        with tarfile.open(file) as tar:
            for member in itertools.islice(tar, _MOST_MEMBERS):
                name = Path(member.name).name
                if member.isfile() and not name.startswith(".") and _field(name) not in columns:
                    unused.append(member.name)
    except (tarfile.TarError, OSError, EOFError):
        pass  # the reader of the shard reports it
    if unused:
        by_field = Counter(_field(name) for name in unused)
        what = endings(unused) if len(by_field) > 3 else ", ".join(f"{n:,} .{field}" for field, n in by_field.items())
        account.add(f"files in the first shard that are in no column: {what}", unused)


def _field(name: str) -> str:
    """The column of a file in a WebDataset shard: all that follows the first dot of its name."""
    return Path(name).name.partition(".")[2]


def _escape(file: str) -> str:
    """Escape what is special in a glob, because `datasets` reads `data_files` as globs."""
    return glob.escape(file) if glob.has_magic(file) else file


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def with_labels(dataset: Any) -> Any:
    """Add a `label` column to a WebDataset whose `cls` or `json` column holds labels; images are not decoded.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset` of the webdataset builder.

    Returns:
        The data set with a `label` column; unchanged if it has one already or holds no labels.
    """
    import datasets

    features = dataset.features or {}
    if "label" in features:
        return dataset
    if "cls" in features:
        return _undecoded(dataset, lambda data: data.rename_column("cls", "label"))
    described = features.get("json")
    if not isinstance(described, dict):
        return dataset
    key = next((key for key in _JSON_KEYS if key in described), None)
    if key is None:
        return dataset
    if isinstance(dataset, datasets.Dataset):
        labels = [None if entry is None else entry[key] for entry in dataset.select_columns(["json"])["json"]]
        return dataset.add_column("label", labels, feature=described[key])

    def labelled(data: Any) -> Any:
        return data.map(_JsonLabel(key), features=datasets.Features({**data.features, "label": described[key]}))

    return _undecoded(dataset, labelled)


def _undecoded(dataset: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a change to a stream without letting `datasets` decode its images and encode them again."""
    import datasets

    column = find_image_column(dataset)
    image = dataset.features[column]
    return change(dataset.cast_column(column, datasets.Image(decode=False))).cast_column(column, image)


class _JsonLabel:
    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        described = example["json"]
        return {"label": described.get(self.key) if isinstance(described, dict) else None}
