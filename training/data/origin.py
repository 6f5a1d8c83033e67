"""Where a data set came from, which goes with its `info`: the folder that paths in it may lead to, and damaged shards.

A row of a Parquet file may name any file of this machine, or any address. Such a path is followed only below the data
set's own folder or repository; all other paths are marked, and reading them is an unreadable image.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..files import UNTRUSTED
from .internals import set_info, with_column


@dataclass(frozen=True)
class PathRule:
    """Which paths and addresses in a data set are followed.

    A path that leads out of its folder by a link is not.

    Attributes:
        folders: Absolute folders; relative paths are relative to the first one.
        addresses: Beginnings of addresses (`hf://datasets/user/name@`), also inside of `zip://...::`.
        trusted: Whether all paths and addresses are followed. A relative path is still one below the first folder, if
            there is such a file.
    """

    folders: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    trusted: bool = False

    def follow(self, path: str) -> str:
        """The path or address to read; one that is not to be followed gets the mark `UNTRUSTED`."""
        if path.startswith(UNTRUSTED):
            return path
        if self.trusted:
            below = None if "://" in path or not self.folders else os.path.normpath(Path(self.folders[0], path))
            return below if below is not None and os.path.exists(below) else path  # noqa: PTH110, no error for any text
        if "://" in path:
            target = path.rpartition("::")[2]
            return path if target.startswith(self.addresses or ("\0",)) else UNTRUSTED + path
        for folder in self.folders:
            # `..` is resolved without following links, so that what is checked is what is opened.
            whole = os.path.normpath(Path(folder, path))
            if Path(whole).is_relative_to(folder) and whole != folder and _stays_below(whole, folder):
                return whole
        return UNTRUSTED + path

    def confine(self, image: Any) -> Any:
        """An undecoded image whose path is one that may be read; images with bytes and other objects are unchanged."""
        if isinstance(image, str):
            return self.follow(image)
        if isinstance(image, Mapping) and image.get("bytes") is None and image.get("path"):
            return {**image, "path": self.follow(image["path"])}
        return image

    def confine_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """An example whose undecoded images, {"bytes", "path"}, are confined."""
        return {
            name: self.confine(value) if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys() else value
            for name, value in row.items()
        }

    def mark_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """An example whose undecoded images are confined, those with bytes too, for `datasets` to store.

        It would drop the bytes of an image whose path exists, and read the file instead.
        """
        marked = self.confine_row(row)
        for name, value in marked.items():
            if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys() and value["path"]:
                marked[name] = {**value, "path": self.follow(value["path"])}
        return marked


def _stays_below(path: str, folder: str) -> bool:
    """Whether a path below a folder really lies there: whoever made the data set may have put links into it."""
    try:
        link = os.path.islink(path)  # noqa: PTH114, no error for any text
        real = os.path.realpath(path) if link else str(Path(_real(str(Path(path).parent)), Path(path).name))
        return Path(real).is_relative_to(_real(folder))
    except ValueError:  # a null byte: no file has such a name, and reading it says so
        return True


@functools.lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


@dataclass
class SourceInfo(datasets.DatasetInfo):
    """The `info` of a data set, which objects made from it keep.

    Attributes:
        path_rule: Which paths in its rows are followed; None follows all.
        damaged: (file, reason) of shards that cannot be opened and are left out.
    """

    path_rule: PathRule | None = None
    damaged: tuple[tuple[str, str], ...] = ()


def folder_rule(folder: Path) -> PathRule:
    """Paths below a folder are followed."""
    return PathRule((os.path.normpath(folder.expanduser().absolute()),))


def hub_rule(name: str, cache_dir: str | None) -> PathRule:
    """Paths in the caches of the Hugging Face libraries are followed, and addresses in the data set's repository."""
    from huggingface_hub import constants

    caches = [Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}", Path(cache_dir or "")]
    caches = [*caches[: 2 if cache_dir else 1], Path(datasets.config.HF_DATASETS_CACHE), _downloads()]
    endpoint = constants.ENDPOINT.rstrip("/")
    return PathRule(
        tuple(os.path.normpath(cache.absolute()) for cache in caches),
        (f"hf://datasets/{name}@", f"hf://datasets/{name}/", f"{endpoint}/datasets/{name}/"),
    )


def _downloads() -> Path:
    return Path(datasets.config.DOWNLOADED_DATASETS_PATH)


def origin_of(dataset: Any) -> SourceInfo:
    """The `SourceInfo` of a data set; an empty one if it was not loaded by `load_image_stream`."""
    info = getattr(dataset, "info", None)
    return info if isinstance(info, SourceInfo) else SourceInfo()


def set_origin(dataset: Any, path_rule: PathRule | None = None, damaged: tuple[tuple[str, str], ...] = ()) -> None:
    """Write into a data set's `info` where it came from; what is known already stays."""
    known = origin_of(dataset)
    fields = {**vars(dataset.info), "path_rule": path_rule or known.path_rule, "damaged": damaged or known.damaged}
    set_info(dataset, SourceInfo(**fields))


def confined(dataset: Any, rule: PathRule) -> Any:
    """A data set in which no path leads outside; in a stream the rule is kept, and applied where examples are read.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`, whose images are columns with an `Image` feature.
        rule: Which paths are followed.
    """
    if isinstance(dataset, datasets.Dataset):
        for name, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = _confined_column(dataset, name, rule)
    set_origin(dataset, path_rule=rule)
    return dataset


def confined_stream(stream: Any) -> Any:
    """A stream whose examples are confined when they are read, for readers that need no saved positions."""
    rule = origin_of(stream).path_rule
    if rule is None or not isinstance(stream, datasets.IterableDataset) or stream.features is None:
        return stream
    return stream.map(rule.mark_row, features=stream.features)


def _confined_column(dataset: Any, name: str, rule: PathRule) -> Any:
    """Mark the paths of one column. Encoded images are not copied, and without changes the data set is the same."""
    column = dataset.data.column(name)
    chunks, changed = [], False
    for chunk in column.chunks:
        encoded, paths = pc.struct_field(chunk, "bytes"), pc.struct_field(chunk, "path")
        used = pc.and_(encoded.is_null(), paths.is_valid())
        if used.true_count:
            given = paths.to_pylist()
            wanted = [rule.follow(path) if use else path for path, use in zip(given, used.to_pylist(), strict=True)]
            if wanted != given:
                changed = True
                arrays = [encoded, pa.array(wanted, paths.type)]
                chunk = pa.StructArray.from_arrays(arrays, names=["bytes", "path"], mask=chunk.is_null())
        chunks.append(chunk.cast(column.type))
    if not changed:
        return dataset
    return with_column(dataset, name, pa.chunked_array(chunks, column.type), "confined")
