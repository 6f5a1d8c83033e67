"""Where a folder keeps images and what describes them: pairs of folders or of files, by split."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..folder_tree import EXTENSIONS
from ..split_names import SPLIT_WORDS

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
_BREAK = re.compile(r"[-._ 0-9]+")


def split_in(name: str) -> str | None:
    """The split that a word of a file's or folder's name names, for example of "instances_val2017.json"."""
    words = set(_BREAK.split(name.lower()))
    return next((split for split, known in SPLIT_WORDS.items() if words & set(known)), None)


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_in(folder: Path, endings: Iterable[str]) -> list[Path]:
    """The visible files in a folder, not below it, that have one of the endings, sorted."""
    wanted = tuple(endings)
    with os.scandir(folder) as entries:  # there may be a million of them
        names = [entry.name for entry in entries if entry.name.lower().endswith(wanted)]
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, sorted."""
    return files_in(folder, EXTENSIONS)


def folder_pairs(root: Path, partners: Iterable[str]) -> dict[str, tuple[Path, Path]]:
    """Pairs of a folder of images and a folder of what describes them, by split.

    It finds `images/` and `labels/` side by side, also below a folder for each split, and `images/train` with
    `labels/train`. Without splits, the pair is "train".

    Args:
        root: The data set's folder.
        partners: Names of the second folder, in small letters.
    """
    partners = set(partners)
    found: dict[str, tuple[Path, Path]] = {}
    inside = _pair(root, partners)
    if inside is not None:
        for images in subfolders(inside[0]):
            partner = inside[1] / images.name
            split = split_in(images.name)
            if split is not None and partner.is_dir():
                found.setdefault(split, (images, partner))
        return found or {"train": inside}
    for folder in subfolders(root):
        split, pair = split_in(folder.name), _pair(folder, partners)
        if split is not None and pair is not None:
            found.setdefault(split, pair)
    return found


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their names without ending."""
    return {path.stem: path for path in files}


def _pair(folder: Path, partners: set[str]) -> tuple[Path, Path] | None:
    inside = {path.name.lower(): path for path in subfolders(folder)}
    images = next((inside[name] for name in IMAGE_FOLDERS if name in inside), None)
    partner = next((path for name, path in inside.items() if name in partners and path != images), None)
    return (images, partner) if images is not None and partner is not None else None
