"""A folder of images as a data set that lists every file and opens none.

The imagefolder of `datasets` skips broken symbolic links and streams one shard only. Here everything with an image's
file extension is listed, and a file that cannot be read is reported when it is used.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ..errors import UserError
from .folder_tree import EXTENSIONS, FolderTree, read_tree
from .iterable import as_stream
from .left_out import Account
from .split_names import SPLIT_WORDS, exact_split, splits_in_name

_STREAM_SHARDS = 64


class Listed(NamedTuple):
    """An image of a folder.

    Attributes:
        path: Relative to the data set's folder.
        label_path: The same without the folders that name its split; its first folder is the image's class.
    """

    path: str
    label_path: str


class ImageFolder:
    """Images in a folder: subfolders of the top level, or of any level, may be splits; else all of them are "train".

    Args:
        folder: The folder.
        tree: What lies below it; None lists it, unless subfolders of the top level are splits, one of them "train".
            Then only the split that is asked for is listed.

    Attributes:
        folder: The folder.
        splits: The names of the splits.
    """

    def __init__(self, folder: Path, tree: FolderTree | None = None) -> None:
        self.folder = folder
        self._account = Account()
        self._folders = split_folders(folder)
        self._images: dict[str, list[Listed]] = {}
        if self._folders:
            self.splits = list(self._folders)
        else:
            tree = read_tree(folder) if tree is None else tree
            self._images = _split_images(tree.images, self._account)
            tree.report(self._account)
            if tree.packed:
                self._account.add("Parquet or .tar files: this is read as a folder of images", tree.packed)
            self.splits = list(self._images)

    def images(self, split: str) -> tuple[list[Listed], Account]:
        """The images of a split, sorted, and the account of what is left out."""
        if not self._folders:
            return self._images[split], self._account
        top, account = self._folders[split], Account()
        tree = read_tree(self.folder / top)
        tree.report(account)
        account.add("Parquet or .tar files: this is read as a folder of images", tree.packed)
        beside = sorted(child.name for child in self.folder.iterdir() if not child.name.startswith("."))
        beside = [name for name in beside if name not in self._folders.values()]
        account.add("files or folders beside the folders of the splits", beside)
        return [Listed(f"{top}/{name}", name) for name in tree.images], account

    def files(self, split: str) -> list[str]:
        """The files of a split, relative to the folder."""
        return [image.path for image in self.images(split)[0]]

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> tuple[Any, Account]:
        """The undecoded images of a split.

        If every image is in one of two or more subfolders, the subfolders' names are the classes. Otherwise there are
        no labels.

        Args:
            split: Name of the split.
            streaming: Whether to return an `IterableDataset`, of up to 64 shards that each hold every class.
            cache_dir: Not used: nothing is converted.

        Returns:
            `datasets.Dataset` or `IterableDataset` with `image` (Image) and, if there are classes, `label`
            (ClassLabel); and the account of what was taken for what.

        Raises:
            UserError: There are no images.
        """
        images, account = self.images(split)
        if not images:
            where = self.folder / self._folders[split] if self._folders else self.folder
            raise UserError(f"{where}: no images in this folder (looked for {', '.join(sorted(EXTENSIONS))})")
        account.read_as = f"a folder of {len(images):,} images, split {split}"
        return _as_dataset(self.folder, images, split, streaming), account


def split_folders(folder: Path) -> dict[str, str]:
    """Split name -> name of the subfolder, also of a link to one. Empty if there is no training subfolder."""
    children = {child.name.lower(): child.name for child in folder.iterdir() if exact_split(child.name)}
    named = {split: [children[word] for word in words if word in children] for split, words in SPLIT_WORDS.items()}
    splits = {split: [name for name in names if (folder / name).is_dir()] for split, names in named.items()}
    return {split: names[0] for split, names in splits.items() if names} if splits["train"] else {}


def _as_dataset(folder: Path, images: Sequence[Listed], split: str, streaming: bool) -> Any:
    import datasets

    shards = min(_STREAM_SHARDS, len(images))
    if streaming:
        # Shards are contiguous rows: with every `shards`-th image in each, each holds every class.
        images = [image for shard in range(shards) for image in images[shard::shards]]
    tops = [image.label_path.split("/", 1)[0] if "/" in image.label_path else "" for image in images]
    classes = sorted(set(tops))
    columns: dict[str, list[Any]] = {"image": [{"bytes": None, "path": str(folder / image.path)} for image in images]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if len(classes) > 1 and "" not in classes:
        index = {name: number for number, name in enumerate(classes)}
        columns["label"] = [index[top] for top in tops]
        features["label"] = datasets.ClassLabel(names=classes)
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features), split=split)
    return as_stream(dataset, shards) if streaming else dataset


def _split_images(images: Sequence[str], account: Account) -> dict[str, list[Listed]]:
    """Assign images to splits by their folders' names, else by their own, if those name several splits."""
    folders = {image: image.split("/")[:-1] for image in images}
    exact = {image: next(filter(exact_split, folders[image]), None) for image in images}
    if any(exact.values()):
        found = _grouped(images, lambda image: exact_split(exact[image] or ""))
        if "train" in found or all(exact.values()):
            account.add("images outside of the folders that name splits", [i for i in images if exact[i] is None])
            return _labelled(found, exact)
        names = sorted({name for name in exact.values() if name})
        account.notes.append(f"no folder is named train: {', '.join(names)} are taken for folders of train")
    tops = {image: folders[image][0] if folders[image] else None for image in images}
    stems = {image: PurePath(image).stem for image in images}
    for where, named in (("folders", tops), ("file names", stems)):
        words = {image: splits_in_name(named[image] or "") for image in images}
        only = {image: own[0] if len(own) == 1 else None for image, own in words.items()}
        found = _grouped(images, only.get)
        if "train" in found and len(found) > 1 and sum(map(len, found.values())) == len(images):
            counts = ", ".join(f"{split} {len(chosen):,}" for split, chosen in found.items())
            account.notes.append(f"the names of the {where} name the splits: {counts} images")
            return _labelled(found, tops if where == "folders" else {})
        other = [image for image in images if set(words[image]) - {"train"}]
        if other and where == "file names":
            account.notes.append(
                f"{len(other):,} file names name a split that is not train ({other[0]}), but not every name names a "
                "split: all images are taken for train"
            )
    return {"train": [Listed(image, image) for image in images]}


def _grouped(images: Sequence[str], split_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    """Split -> its images, in the order train, validation, test; images without a split are in none."""
    found: dict[str, list[str]] = {split: [] for split in SPLIT_WORDS}
    for image in images:
        split = split_of(image)
        if split is not None:
            found[split].append(image)
    return {split: chosen for split, chosen in found.items() if chosen}


def _labelled(found: dict[str, list[str]], removed: dict[str, str | None]) -> dict[str, list[Listed]]:
    """Give each image its label path: without the folder that names its split, and without those that all share."""
    parts: dict[str, list[str]] = {}
    for image in (image for chosen in found.values() for image in chosen):
        parts[image] = image.split("/")
        name = removed.get(image)
        if name is not None:
            parts[image].remove(name)
    shared = 0
    while all(len(path) > shared + 2 for path in parts.values()) and len({p[shared] for p in parts.values()}) == 1:
        shared += 1
    return {
        split: [Listed(image, "/".join(parts[image][shared:])) for image in chosen] for split, chosen in found.items()
    }
