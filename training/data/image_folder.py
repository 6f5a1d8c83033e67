"""A folder of images as a data set that lists every file and opens none.

The imagefolder of `datasets` skips broken symbolic links and streams one shard only. Here everything with an image's
file extension is listed, and a file that cannot be read is reported when it is used.
"""

import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from .iterable import as_stream

EXTENSIONS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".jp2",
        ".avif",
    )
)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
_STREAM_SHARDS = 64


def split_folders(folder: Path) -> dict[str, Path]:
    """Split name -> subfolder. Empty if the folder has no training subfolder."""
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    splits = {
        split: children[name] for split, names in SPLIT_FOLDERS.items() for name in names[::-1] if name in children
    }
    return splits if "train" in splits else {}


def list_images(folder: Path) -> list[str]:
    """Sorted paths, relative to `folder`, of everything with an image's extension; each linked folder is read once."""
    images: list[str] = []
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # A folder with an image's extension is listed as an image, so that it is reported as unreadable.
        wrong = [name for name in folders if _is_image(name)]
        folders[:] = [name for name in folders if not _is_image(name) and not name.startswith(".")]
        relative = os.path.relpath(parent, folder)
        prefix = "" if relative == os.curdir else relative + os.sep
        images.extend(prefix + name for name in (*files, *wrong) if _is_image(name) and not name.startswith("."))
    return sorted(images)


def has_images(folder: Path) -> bool:
    """Whether anything below `folder` has an image's extension."""
    for _, folders, files in os.walk(folder, followlinks=False):
        if any(_is_image(name) for name in (*files, *folders)):
            return True
    return False


def load_image_folder(folder: Path, split: str, streaming: bool) -> Any:
    """The undecoded images below a folder.

    If every image is in one of two or more subfolders, the subfolders' names are the classes. Otherwise there are no
    labels.

    Args:
        folder: Folder of one split.
        split: Name of the split.
        streaming: Whether to return an `IterableDataset`, of up to 64 shards that each hold every class.

    Returns:
        `datasets.Dataset` or `IterableDataset` with `image` (Image) and, if there are classes, `label` (ClassLabel).

    Raises:
        UserError: There are no images.
    """
    import datasets

    names = list_images(folder)
    if not names:
        raise UserError(f"{folder}: no images in this folder (looked for {', '.join(sorted(EXTENSIONS))})")
    shards = min(_STREAM_SHARDS, len(names))
    if streaming:
        # Shards are contiguous rows: with every `shards`-th image in each, each holds every class.
        names = [name for shard in range(shards) for name in names[shard::shards]]
    tops = [name.split(os.sep, 1)[0] if os.sep in name else "" for name in names]
    classes = sorted(set(tops))
    columns: dict[str, list[Any]] = {"image": [{"bytes": None, "path": str(folder / name)} for name in names]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if len(classes) > 1 and "" not in classes:
        index = {name: number for number, name in enumerate(classes)}
        columns["label"] = [index[top] for top in tops]
        features["label"] = datasets.ClassLabel(names=classes)
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features), split=split)
    return as_stream(dataset, shards) if streaming else dataset


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS
