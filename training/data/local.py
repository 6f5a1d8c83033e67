"""Data sets on this machine: what a path is taken for, and its images as a `datasets` object."""

import glob
import re
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError, did_you_mean, near_names
from ..files import looks_like_path
from .annotations.folder import KINDS, AnnotatedFolder, find_annotations, named_kind
from .folder_tree import PACKED, FolderTree, ending, endings, is_image, read_tree, remedy
from .image_folder import ImageFolder, split_folders
from .iterable import as_stream
from .left_out import Account
from .packed import load_packed
from .split_names import assign_splits, exact_split, is_sharded_name, splits_in_name

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


class LocalSource(Protocol):
    """A local data set.

    Attributes:
        folder: The folder that paths in its rows may lead to.
        splits: The names of its splits.
    """

    folder: Path
    splits: list[str]

    def files(self, split: str) -> list[str]:
        """The files of a split, relative to the folder."""

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> tuple[Any, Account]:
        """The `datasets` object of a split, and the account of what was taken for what."""


class _Packed:
    """Parquet files or WebDataset shards of one kind.

    Args:
        folder: Folder below which they lie.
        files: Their paths relative to it.
        account: Of what was chosen so far.
    """

    def __init__(self, folder: Path, files: list[str], account: Account) -> None:
        self.folder, self._account = folder, account
        self.kind = PACKED[ending(files[0])]
        self._files = assign_splits(files, str(folder), account)
        self.splits = list(self._files)

    def files(self, split: str) -> list[str]:
        """The files of a split, relative to the folder."""
        return self._files[split]

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> tuple[Any, Account]:
        """The `datasets` object of a split, and the account of what was taken for what."""
        files = self._files[split]
        self._account.read_as = f"{len(files):,} {ending(files[0])} files, split {split}"
        paths = [str(self.folder / file) for file in files]
        return load_packed(self.kind, paths, split, streaming, cache_dir, self._account), self._account


class _Saved:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""

    def __init__(self, path: Path) -> None:
        import datasets

        self.folder = path
        self.data = datasets.load_from_disk(str(path))
        is_dict = isinstance(self.data, dict)
        self._splits = dict(self.data) if is_dict else {str(self.data.split or "train"): self.data}
        self.splits = list(self._splits)

    def files(self, split: str) -> list[str]:
        """The files of a split, relative to the folder."""
        where = split if isinstance(self.data, dict) else "."
        return sorted(str(file.relative_to(self.folder)) for file in (self.folder / where).glob("*.arrow"))

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> tuple[Any, Account]:
        """The `datasets` object of a split, and the account of what was taken for what."""
        dataset = self._splits[split]
        account = Account(f"a data set of {len(dataset):,} rows written by save_to_disk, split {split}")
        return as_stream(dataset, 64) if streaming else dataset, account


class _Annotated:
    """A folder of images with boxes or masks in files beside them."""

    def __init__(self, folder: Path, annotated: AnnotatedFolder) -> None:
        self.folder, self._annotated = folder, annotated
        self.splits = list(annotated.splits)

    def files(self, split: str) -> list[str]:
        """All files of the folder: which of them a split needs stands in them."""
        tree = read_tree(self.folder)
        return sorted([*tree.images, *tree.others])

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> tuple[Any, Account]:
        """The `datasets` object of a split, and the account of what was taken for what."""
        account = Account(f"a folder of images with {KINDS[self._annotated.kind]}, split {split}")
        return self._annotated.load(split, streaming, cache_dir), account


def locate(name: str) -> LocalSource | None:
    """The local data set at a path or glob; None if it can only be the name of a data set on the Hub.

    Raises:
        UserError: It is a path, and there is no data set that can be read, or it may be read in two ways.
    """
    path = Path(name).expanduser()
    chosen = named_kind(name)
    if chosen is not None and not path.exists():
        annotated = find_annotations(*chosen)
        return None if annotated is None else _Annotated(chosen[0], annotated)
    if path.is_dir():
        return _locate_folder(name, path)
    if path.is_file():
        if ending(path.name) in PACKED:
            return _Packed(path.parent, [path.name], Account())
        raise UserError(f"{name}: a data set is a folder of images, or .parquet or .tar files, not {_described(path)}")
    if _BRACES.search(name):
        return _packed_files(name, _braced_files(name))
    if glob.has_magic(name):
        files = [file for file in _matches(path) if ending(file) in PACKED]
        if files:
            return _packed_files(name, files)
        raise UserError(f"{name}: no .parquet or .tar file matches")
    if path.exists():
        raise UserError(f"{name}: a data set is a folder or a file, and this is neither")
    local = looks_like_path(name) or ending(path.name) in PACKED
    if local or ("/" not in name and near_data_sets(path)):
        raise UserError(f"{name}: no such data set{did_you_mean(near_data_sets(path))}")
    return None


def _described(path: Path) -> str:
    """A file that is no data set, and what to do: "a .zip file; unpack it first"."""
    if is_image(path.name):
        return "one image; name its folder"
    kind = ending(path.name)
    return f"a {kind} file{remedy([path.name])}" if kind else "a file without an ending"


def near_data_sets(path: Path) -> list[str]:
    """Names similar to a missing path: of what is beside it, and of the embedded data set."""
    parent = path.parent
    beside = [str(parent / child.name) for child in parent.iterdir()] if parent.is_dir() else []
    return near_names(str(path), [*beside, "digits"], most=3, cutoff=0.7)


def _locate_folder(name: str, path: Path) -> LocalSource:
    """What a folder is: images, packed files, or a saved data set, as `datasets` would read it."""
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _Saved(path)
    try:
        packed_near = _has_packed_near(path)
        splits = split_folders(path)
    except OSError as error:
        raise UserError(f"{name}: this folder cannot be read: {error.strerror or error}") from None
    if not packed_near:
        annotated = find_annotations(path)
        if annotated is not None:
            return _Annotated(path, annotated)
        if splits:
            return ImageFolder(path)
    tree = read_tree(path)
    described = [file for file in tree.packed if Path(file).stem == "metadata" and tree.images]
    packed = [file for file in tree.packed if file not in described]
    if not tree.images and not packed:
        account = Account()
        tree.report(account)
        held = "; ".join(account.lines())
        raise UserError(
            f"{name}: this folder has no images, Parquet files or WebDataset shards{f' ({held})' if held else ''}"
            f"{remedy(tree.others)}"
        )
    if not packed or _is_image_folder(name, tree, packed):
        annotated = find_annotations(path) if packed_near else None
        return ImageFolder(path, tree) if annotated is None else _Annotated(path, annotated)
    account = Account()
    chosen = _one_kind(name, packed, account)
    account.add("images beside the files", tree.images)
    tree.report(account)
    return _Packed(path, chosen, account)


def _has_packed_near(path: Path) -> bool:
    """Whether there are packed files in a folder, its `data` folder, or a folder that names a split."""
    near = [path, *(child for child in path.iterdir() if child.name == "data" or exact_split(child.name))]
    return any(ending(file.name) in PACKED for folder in near if folder.is_dir() for file in folder.iterdir())


def _is_image_folder(name: str, tree: FolderTree, packed: list[str]) -> bool:
    """Whether a folder of images and packed files is read as images.

    `datasets` reads the kind of which there are more files, among those whose names or folders name splits, if any do.

    Raises:
        UserError: The two ways to read it are equally good.
    """
    if not tree.images:
        return False
    if any(is_sharded_name(file) for file in packed):  # the layout of the Hub: images beside it are illustrations
        return False
    in_splits = any(exact_split(part) for image in tree.images for part in image.split("/")[:-1])
    named = any(splits_in_name(part) for file in packed for part in Path(file).with_suffix("").parts)
    more_images = len(tree.images) > len(packed)
    if len(tree.images) != len(packed) and not (more_images and named and not in_splits):
        return more_images
    kinds = endings(packed)
    raise UserError(
        f"{name}: this may be a folder of {len(tree.images):,} images or a data set of {kinds} files "
        f"({packed[0]}{', ...' if len(packed) > 1 else ''}); name the subfolder with the images, or the files as "
        f"'{name.rstrip('/')}/*{ending(packed[0])}', or move one of them elsewhere"
    )


def _one_kind(name: str, packed: list[str], account: Account) -> list[str]:
    """The files of the kind of which there are more; the others are left out.

    Raises:
        UserError: There are as many of each.
    """
    sharded = [file for file in packed if is_sharded_name(file)]
    counts = Counter(ending(file) for file in sharded or packed).most_common()
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        raise UserError(
            f"{name}: this may be a data set of {endings(packed)} files; name those to read as "
            f"'{name.rstrip('/')}/*{counts[0][0]}' or '{name.rstrip('/')}/*{counts[1][0]}'"
        )
    account.add(f"files that are not {counts[0][0]}", [file for file in packed if ending(file) != counts[0][0]])
    return [file for file in packed if ending(file) == counts[0][0]]


def _packed_files(name: str, files: list[str]) -> _Packed:
    """Files that the user named by a glob or braces."""
    account = Account()
    chosen = _one_kind(name, files, account)
    folder = Path(chosen[0]).parent
    while not all(Path(file).is_relative_to(folder) for file in chosen):
        folder = folder.parent
    return _Packed(folder, [str(Path(file).relative_to(folder)) for file in chosen], account)


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
    wrong = [file for file in files if ending(file) not in PACKED]
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
