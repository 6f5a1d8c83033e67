"""A folder of images as a data set that lists every file and opens none.

`datasets`' own imagefolder skips broken symbolic links and cannot stream in more than one shard; here whatever has an
image's name is listed, and what cannot be read is found out, and named, when it is used.
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
    """Split name -> subfolder, for a folder that has a training subfolder; else empty."""
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    found = {
        split: children[name] for split, names in SPLIT_FOLDERS.items() for name in names[::-1] if name in children
    }
    return found if "train" in found else {}


def list_images(folder: Path) -> list[str]:
    """Paths relative to `folder` of everything with an image's name, sorted; links to folders are followed once."""
    found: list[str] = []
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        # A folder with an image's name is a mistake to be named, not a class.
        wrong = [name for name in folders if _is_image(name)]
        folders[:] = [name for name in folders if not _is_image(name) and not name.startswith(".")]
        relative = os.path.relpath(parent, folder)
        prefix = "" if relative == os.curdir else relative + os.sep
        found.extend(prefix + name for name in (*files, *wrong) if _is_image(name) and not name.startswith("."))
    return sorted(found)


def has_images(folder: Path) -> bool:
    """Whether there is anything with an image's name below `folder`."""
    for _, folders, files in os.walk(folder, followlinks=False):
        if any(_is_image(name) for name in (*files, *folders)):
            return True
    return False


def load_image_folder(folder: Path, split: str, streaming: bool) -> Any:
    """The images below `folder`, undecoded.

    If all images lie in two or more subfolders, the subfolders' names are the classes; otherwise there are no labels.

    Args:
        folder: Folder of one split.
        split: Name of the split.
        streaming: Give an `IterableDataset` of up to 64 shards, each a fair sample of the folder.

    Raises:
        UserError: There are no images.
    """
    import datasets

    names = list_images(folder)
    if not names:
        raise UserError(f"{folder}: no images in this folder (looked for {', '.join(sorted(EXTENSIONS))})")
    shards = min(_STREAM_SHARDS, len(names))
    if streaming:
        # Shards are contiguous: dealt like cards, each holds every class.
        names = [name for shard in range(shards) for name in names[shard::shards]]
    tops = [name.split(os.sep, 1)[0] if os.sep in name else "" for name in names]
    classes = sorted(set(tops))
    columns: dict[str, list] = {"image": [{"bytes": None, "path": str(folder / name)} for name in names]}
    features = {"image": datasets.Image()}
    if len(classes) > 1 and "" not in classes:
        index = {name: number for number, name in enumerate(classes)}
        columns["label"] = [index[top] for top in tops]
        features["label"] = datasets.ClassLabel(names=classes)
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features), split=split)
    return as_stream(dataset, shards) if streaming else dataset


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS
