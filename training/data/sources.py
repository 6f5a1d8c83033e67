"""Images as a `datasets` object: digits, image folders, Parquet files, WebDataset shards, data sets on the Hub."""

import glob
import os
import re
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError, did_you_mean, near_names
from ..files import looks_like_path
from . import digits
from .annotations.folder import find_annotations, named_kind
from .columns import check_image_column, without_decoding
from .hub_access import hub_access
from .image_folder import SPLIT_FOLDERS, has_images, load_image_folder, split_folders
from .iterable import as_stream, length_of
from .parquet import by_row_group, parquet_reading, stream_hub_dataset
from .prepared import with_written_columns, written_features
from .webdataset import with_labels

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_PACKED = {".parquet": "parquet", ".tar": "webdataset"}


def load_image_stream(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    streaming: bool = False,
    *,
    revision: str | None = None,
    config: str | None = None,
    cache_dir: str | None = None,
    image_column: str | None = None,
) -> Any:
    """Load a data set of images without decoding them.

    Args:
        name_or_path: "digits"; a folder of images (subfolders are classes; train/ validation/ test/ are splits); a
            Parquet file or WebDataset .tar file, several of them as a glob or with braces (`shard-{000..099}.tar`), or
            a folder of them (splits are told from the names of files or subfolders); a folder written by
            `save_to_disk`; or the name of a data set on the Hub, `user/name` or `user/name:config`.
        split: Name of the split.
        streaming: Whether to return an `IterableDataset`, which reads while it is used, instead of downloading first.
        revision: Branch, tag or commit of a Hub data set.
        config: Configuration of a Hub data set.
        cache_dir: Where `datasets` keeps what it downloads and converts; None is its default.
        image_column: Column of the images; None detects it by its type or name.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset` with an `Image` column and, if there are labels, a `ClassLabel`
        or integer label column.

    Raises:
        UserError: There is no such data set, split or image column, or the split is empty.
    """
    import datasets

    name = os.fspath(name_or_path)
    if name == "digits" and not Path(name).exists():
        _check_split(name, split, list(digits.SPLITS))
        dataset = digits.load_digits_split(split)
        dataset = as_stream(dataset, 8) if streaming else dataset
    else:
        source = _locate(name)
        if source is None:
            dataset = _load_hub(name, split, streaming, revision, config, cache_dir)
        else:
            _check_split(name, split, list(source.splits))
            dataset = source.load(split, streaming, cache_dir)
    if _is_empty(dataset):
        raise UserError(f"{name}: the split {split!r} is empty")
    column = check_image_column(dataset, image_column)
    feature = (dataset.features or {}).get(column)
    if feature is not None and not isinstance(feature, datasets.Image):  # encoded bytes, {bytes, path}, or a path
        dataset = dataset.cast_column(column, datasets.Image())
    dataset.info.dataset_name = name
    return dataset


def split_names(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, config: str | None = None
) -> list[str]:
    """The splits of a data set.

    Args:
        name_or_path: As for `load_image_stream`.
        revision: Branch, tag or commit of a Hub data set.
        config: Configuration of a Hub data set.

    Returns:
        Their names, as `load_image_stream` takes them.

    Raises:
        UserError: There is no such data set.
    """
    name = os.fspath(name_or_path)
    if name == "digits" and not Path(name).exists():
        return list(digits.SPLITS)
    source = _locate(name)
    if source is not None:
        return list(source.splits)
    import datasets

    name, config = _hub_name(name, config)
    try:
        with hub_access():
            return list(datasets.get_dataset_split_names(name, config, revision=revision))
    except Exception as error:
        raise _hub_error(name, error) from error


def hub_dataset(name_or_path: str | os.PathLike[str], revision: str | None = None) -> tuple[str | None, str | None]:
    """The name and commit of a data set on the Hub.

    Args:
        name_or_path: As for `load_image_stream`.
        revision: Branch, tag or commit.

    Returns:
        ("user/name", full commit); (None, None) for a local or embedded data set; no commit if the Hub does not answer.
    """
    name = os.fspath(name_or_path)
    if (name == "digits" and not Path(name).exists()) or _locate(name) is not None:
        return None, None
    from huggingface_hub import HfApi

    hub_name = _hub_name(name, None)[0]
    try:
        return hub_name, HfApi().dataset_info(hub_name, revision=revision, timeout=10).sha
    except Exception:  # the commit is only written down: a run without it is better than none
        return hub_name, None


class _Source(Protocol):
    """A local data set. `splits` has one key per split."""

    splits: dict[str, Any]

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> Any:
        """The `datasets` object of one split."""


class _Folder:
    """Images in a folder: one subfolder per split, or all of them are "train"."""

    def __init__(self, path: Path) -> None:
        self.splits: dict[str, Any] = split_folders(path) or {"train": path}

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> Any:
        return load_image_folder(self.splits[split], split, streaming)


class _Packed:
    """Parquet files or WebDataset shards; `splits` maps each split to its files."""

    def __init__(self, files: list[str]) -> None:
        self.kind = _PACKED[Path(files[0]).suffix.lower()]
        files = [file for file in files if _PACKED[Path(file).suffix.lower()] == self.kind]
        by_split: dict[str, list[str]] = {}
        for file in files:
            by_split.setdefault(_split_of(file), []).append(file)
        self.splits: dict[str, Any] = {name: by_split[name] for name in SPLIT_FOLDERS if name in by_split}
        if "" in by_split:  # one file does not name a split: then file names do not tell splits
            self.splits = {"train": files}

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> Any:
        import datasets

        files = self.splits[split]
        folder = Path(files[0]).parent
        options: dict[str, Any] = parquet_reading() if self.kind == "parquet" and streaming else {}
        if self.kind == "webdataset":
            options = {"features": written_features(folder)}
        try:
            dataset = datasets.load_dataset(
                self.kind,
                data_files={split: [_escape(file) for file in files]},
                split=split,
                streaming=streaming,
                cache_dir=cache_dir,
                **options,
            )
        except Exception as error:
            raise UserError(f"{files[0]}: cannot be read as {self.kind}: {_root_cause(error)}") from error
        if self.kind == "webdataset":
            return with_labels(with_written_columns(dataset, folder))
        if streaming:
            return by_row_group(dataset, files)
        return dataset


class _Saved:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""

    def __init__(self, path: Path) -> None:
        import datasets

        self.data = datasets.load_from_disk(str(path))
        is_dict = isinstance(self.data, dict)
        self.splits = dict(self.data) if is_dict else {str(self.data.split or "train"): self.data}

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> Any:
        dataset = self.splits[split]
        return as_stream(dataset, 64) if streaming else dataset


def _locate(name: str) -> _Source | None:
    """The local data set at a path or glob; None if it can only be the name of a data set on the Hub.

    Raises:
        UserError: It is a path, and there is no data set that can be read.
    """
    path = Path(name).expanduser()
    chosen = named_kind(name)
    if chosen is not None and not path.exists():
        return find_annotations(*chosen)
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            return _Saved(path)
        packed = _packed_files(path)
        if packed:
            return _Packed(packed)
        annotated = find_annotations(path)
        if annotated is not None:
            return annotated
        if has_images(path):
            return _Folder(path)
        raise UserError(f"{name}: this folder has no images, Parquet files or WebDataset shards")
    if path.is_file():
        if path.suffix.lower() in _PACKED:
            return _Packed([str(path)])
        raise UserError(
            f"{name}: a data set is a folder of images, or .parquet or .tar files, not a {path.suffix} file"
        )
    if _BRACES.search(name):
        return _Packed(_braced_files(name))
    if glob.has_magic(name):
        files = [file for file in _matches(path) if Path(file).suffix.lower() in _PACKED]
        if files:
            return _Packed(files)
        raise UserError(f"{name}: no .parquet or .tar file matches")
    local = looks_like_path(name) or path.suffix.lower() in _PACKED
    if local or ("/" not in name and _near(path)):
        raise UserError(f"{name}: no such data set{did_you_mean(_near(path))}")
    return None


def _matches(pattern: Path) -> list[str]:
    """Sorted paths that match a glob; for another path, the path itself if it exists."""
    if not glob.has_magic(str(pattern)):
        return [str(pattern)] if pattern.exists() else []
    start = Path(pattern.anchor or ".")
    return sorted(str(match) for match in start.glob(str(pattern.relative_to(pattern.anchor))))


def _braced_files(name: str) -> list[str]:
    """The files of `shard-{000..099}.tar` or `{train,more}.parquet`, in order; each alternative may be a glob.

    Raises:
        UserError: A file is missing, or is not a Parquet file or WebDataset shard.
    """
    files: list[str] = []
    for pattern in _expand_braces(str(Path(name).expanduser())):
        matches = _matches(Path(pattern))
        if not matches:
            raise UserError(f"{name}: there is no {pattern}")
        files.extend(matches)
    wrong = [file for file in files if Path(file).suffix.lower() not in _PACKED]
    if wrong:
        raise UserError(f"{name}: {wrong[0]} is not a .parquet or .tar file")
    return files


def _expand_braces(text: str) -> list[str]:
    """Expand braces as a shell does: `{008..011}` to the numbers, with leading zeros, and `{a,b}` to its words."""
    braces = _BRACES.search(text)
    if braces is None:
        return [text]
    first, last, words = braces.groups()
    if words is not None:
        parts = words.split(",")
    else:
        step = 1 if int(last) >= int(first) else -1
        width = len(first) if first.startswith("0") else 0
        parts = [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
    before, after = text[: braces.start()], text[braces.end() :]
    return [expanded for part in parts for expanded in _expand_braces(before + part + after)]


def _packed_files(folder: Path) -> list[str]:
    """Parquet files or WebDataset shards of a folder, else of its subfolders at any depth if it holds no images.

    The subfolders of a folder with images are not searched: there may be a million files in them.
    """
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    usual = {"data", *(name for names in SPLIT_FOLDERS.values() for name in names)}
    near = [folder, *(child for child in children if child.name.lower() in usual)]
    for deep in (False, True):
        if deep and has_images(folder):
            return []
        for suffix in _PACKED:
            pattern = f"*{suffix}"
            files = folder.rglob(pattern) if deep else (file for parent in near for file in parent.glob(pattern))
            # metadata.parquet beside images describes them; it is not a data set
            packed = sorted(str(file) for file in files if file.is_file() and file.stem != "metadata")
            if packed:
                return packed
    return []


def _split_of(file: str) -> str:
    """The split that a file's name (train-00000-of-00004.parquet, test.parquet) or its folder names; "" if none."""
    path = Path(file)
    words = path.stem.lower().replace("_", "-").replace(".", "-").split("-")
    for split, names in SPLIT_FOLDERS.items():
        if words[0] in names or words[-1] in names or path.parent.name.lower() in names:
            return split
    return ""


def _is_empty(dataset: Any) -> bool:
    length = length_of(dataset)
    return next(iter(without_decoding(dataset)), None) is None if length is None else length == 0


def _load_hub(
    name: str, split: str, streaming: bool, revision: str | None, config: str | None, cache_dir: str | None
) -> Any:
    import datasets

    hub_name, config = _hub_name(name, config)
    try:
        with hub_access():
            if streaming:
                return stream_hub_dataset(hub_name, config, split, revision, cache_dir)
            return datasets.load_dataset(hub_name, config, split=split, revision=revision, cache_dir=cache_dir)
    except Exception as error:
        raise _hub_error(name, error) from error


def _hub_name(name: str, config: str | None) -> tuple[str, str | None]:
    hub_name, _, after = name.partition(":")
    return hub_name, config or after or None


def _hub_error(name: str, error: Exception) -> UserError:
    kind = type(error).__name__
    if kind == "DatasetNotFoundError":
        return UserError(f"{name}: no such data set, here or on the Hub{did_you_mean(_near(Path(name)))}")
    if isinstance(error, ConnectionError) or "Offline" in kind or "Connection" in kind:
        return UserError(f"{name}: not found here, and the Hub cannot be reached{did_you_mean(_near(Path(name)))}")
    return UserError(f"{name}: {_root_cause(error)}")


def _check_split(name: str, split: str, splits: list[str]) -> None:
    if split not in splits:
        raise UserError(f"{name}: no split {split!r}; its splits are: {', '.join(splits)}")


def _near(path: Path) -> list[str]:
    """Names similar to a missing path: of what is beside it, and of the embedded data set."""
    parent = path.parent
    beside = [str(parent / child.name) for child in parent.iterdir()] if parent.is_dir() else []
    return near_names(str(path), [*beside, "digits"], most=3, cutoff=0.7)


def _escape(file: str) -> str:
    """Escape what is special in a glob, because `datasets` reads `data_files` as globs."""
    return glob.escape(file) if glob.has_magic(file) else file


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
