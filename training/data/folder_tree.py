"""Every file below a folder, with one rule for links: each real folder is read once, and loops end.

A folder that really lies below the data set is read under its own name; one that only a link reaches, under the name of
the first such link. Hidden files and folders are not read.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .left_out import Account

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
PACKED = {".parquet": "parquet", ".tar": "webdataset"}
"""Endings of files that hold many images, and the name of their kind in `datasets`."""

# Files that describe a data set, as `datasets` and `ladder prepare` know them, and no data of it.
_DESCRIPTIONS = frozenset(
    ("README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "features.json")
)
_MOST_ENDINGS = 6


_REMEDIES = {
    "unpack it first": (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    "convert the photographs to JPEG or PNG first": (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd"),
    "write frames of the videos as images first": (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
    "name the folder that holds the images": (".csv", ".json", ".jsonl", ".txt", ".npy", ".npz", ".h5", ".yaml", ".md"),
}


@dataclass
class FolderTree:
    """What lies below a folder. All paths are relative to it and sorted.

    Attributes:
        images: Everything with an image's ending, also folders, which are reported as unreadable when they are used.
        packed: Parquet files and .tar files.
        others: All other files, except those that only describe the data set.
        hidden: Hidden folders, and hidden files with the ending of an image or a packed file.
        closed: Folders that may not be read.
        repeated: Links to folders that are read under another name.
        not_utf8: Files and folders whose names are not UTF-8, which Arrow cannot hold.
    """

    images: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)

    def report(self, account: Account) -> None:
        """Add to an account what is neither an image nor a packed file."""
        if self.others:
            account.add(f"files with an ending that is not an image's: {endings(self.others)}", self.others)
        account.add("folders that may not be read", self.closed)
        account.add("files or folders whose name is not UTF-8; rename them", self.not_utf8)
        account.add("links to folders that are read under another name", self.repeated)
        account.add("hidden files or folders", self.hidden)


def is_image(name: str) -> bool:
    """Whether a file name has an image's ending."""
    return ending(name) in EXTENSIONS


def ending(name: str) -> str:
    """The ending of a file's name or path in small letters; "" if it has none."""
    stem, _, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if stem and last else ""


def endings(names: list[str]) -> str:
    """How many files have which ending: "120 .heic, 10 without an ending"."""
    counts = Counter(ending(name) for name in names)
    shown = [f"{count:,} {name or 'without an ending'}" for name, count in counts.most_common(_MOST_ENDINGS)]
    return ", ".join(shown + (["..."] if len(counts) > _MOST_ENDINGS else []))


def remedy(names: list[str]) -> str:
    """What to do about files that are no images and hold none that can be read, by the most usual ending of theirs.

    Args:
        names: Of the files.

    Returns:
        "; " and the advice; "" if there is none.
    """
    counts = Counter(ending(name) for name in names).most_common()
    found = (advice for kind, _ in counts for advice, kinds in _REMEDIES.items() if kind in kinds)
    advice = next(found, None)
    return "" if advice is None else f"; {advice}"


def read_tree(folder: Path) -> FolderTree:
    """List everything below a folder; no file is opened."""
    tree = FolderTree()
    links: list[str] = []
    visited: set[str] = set()
    _walk(folder, "", tree, visited, links)
    while links:
        links.sort()
        link = links.pop(0)
        if os.path.realpath(folder / link) in visited:
            tree.repeated.append(link)
        else:
            _walk(folder, link, tree, visited, links)
    for names in vars(tree).values():
        names.sort()
    return tree


def _walk(root: Path, start: str, tree: FolderTree, visited: set[str], links: list[str]) -> None:
    """Read a folder and the real folders below it; links to folders are only noted."""
    waiting = [start]
    while waiting:
        relative = waiting.pop()
        visited.add(os.path.realpath(root / relative))
        try:
            entries = list(os.scandir(root / relative))
        except OSError:
            tree.closed.append(relative or os.curdir)
            continue
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            folder = _is_folder(entry)
            if not _is_utf8(entry.name):
                tree.not_utf8.append(path)
            elif entry.name.startswith("."):
                if folder or is_image(entry.name) or ending(entry.name) in PACKED:
                    tree.hidden.append(path)
            elif is_image(entry.name):
                tree.images.append(path)
            elif folder:
                (links if entry.is_symlink() else waiting).append(path)
            elif ending(entry.name) in PACKED:
                tree.packed.append(path)
            elif entry.name not in _DESCRIPTIONS:
                tree.others.append(path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one; not if its links never end."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
