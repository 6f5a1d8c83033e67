"""Which split a file belongs to, told from its name or its folders' names, as `datasets` does.

A name names a split if one of its words is "train", "validation", "test" or a synonym; words end at `-`, `.`, `_`,
spaces and digits. If folders name splits, the files outside of such folders are left out; else, if file names do, the
files that name none.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from ..errors import UserError
from .left_out import Account

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> the words that name it, as in `datasets`, the most usual first."""

_BREAK = re.compile(r"[-._ 0-9]+")
_SHARDED = re.compile(r"^(.*/)?data/[^/]*-\d{5}-of-\d{5}[^/]*\.[^/]*$")


def is_sharded_name(path: str) -> bool:
    """Whether a path is `data/SPLIT-00000-of-00001...`, by which the Hub knows the files of a data set."""
    return bool(_SHARDED.match(PurePath(path).as_posix()))


def exact_split(name: str) -> str | None:
    """The split that a folder's whole name is a word for."""
    return next((split for split, words in SPLIT_WORDS.items() if name.lower() in words), None)


def splits_in_name(name: str) -> list[str]:
    """All splits that the words of a name name, in the order train, validation, test."""
    words = set(_BREAK.split(name.lower()))
    return [split for split, known in SPLIT_WORDS.items() if words & set(known)]


def assign_splits(files: Sequence[str], what: str, account: Account) -> dict[str, list[str]]:
    """Assign files to splits, and note what was taken for what.

    Args:
        files: Paths, relative to the data set.
        what: What the files are, for messages: "photos: .tar".
        account: Gets a note of each choice, and the files that are left out.

    Returns:
        Split -> its files, in the order train, validation, test. Without any name of a split, all files are "train".

    Raises:
        UserError: A file's name names two splits.
    """
    by_name = [_of_file(file, files) for file in files]
    by_folder = [_of_folders(PurePath(file).parent.parts) for file in files]
    # Folders come first, unless all files lie in folders of one split and their own names tell several apart.
    named = by_folder
    if not any(by_folder) or (len(set(by_folder)) == 1 and len({*map(tuple, by_name)} - {()}) > 1):
        several = [file for file, splits in zip(files, by_name, strict=True) if len(splits) > 1]
        if several:
            raise UserError(
                f"{what}: the name of {several[0]} names two splits; rename it, or give the files of one split, "
                "for example as a glob"
            )
        named = [splits[0] if splits else None for splits in by_name]
    found = {split: [file for file, name in zip(files, named, strict=True) if name == split] for split in SPLIT_WORDS}
    splits = {split: chosen for split, chosen in found.items() if chosen}
    unnamed = [file for file, name in zip(files, named, strict=True) if name is None]
    if not splits:
        if len(files) > 1:
            account.notes.append(f"no name of a file or folder names a split: all {len(files):,} are taken for train")
        return {"train": list(files)}
    if unnamed and "train" not in splits:
        account.notes.append(
            f"{len(unnamed):,} files whose names name no split are taken for train ({unnamed[0]}"
            f"{', ...' if len(unnamed) > 1 else ''}); names name only {', '.join(splits)}"
        )
        return {"train": unnamed, **splits}
    account.add("files whose names name no split, beside files whose names do", unnamed)
    return splits


def _of_folders(parts: Iterable[str]) -> str | None:
    """The split named by the innermost folder that names exactly one."""
    for part in reversed(list(parts)):
        splits = splits_in_name(part)
        if len(splits) == 1:
            return splits[0]
    return None


def _of_file(file: str, files: Sequence[str]) -> list[str]:
    """The splits that a file's name names; of several, those that do not stand in the names of all files."""
    splits = splits_in_name(PurePath(file).stem)
    if len(splits) < 2:
        return splits
    common = set.intersection(*(set(splits_in_name(PurePath(other).stem)) for other in files))
    return [split for split in splits if split not in common]
