"""A folder of images with boxes or masks in files beside them, as a data set."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..iterable import as_stream
from .coco import coco_files, read_coco
from .masks import mask_pairs
from .places import images_in, split_in, subfolders
from .rows import Boxes, boxes_dataset, masks_dataset
from .voc import read_voc, voc_images
from .yolo import read_yolo, yolo_folders

logger = logging.getLogger(__name__)
KINDS = {"coco": "COCO boxes", "yolo": "YOLO boxes", "voc": "VOC boxes", "masks": "masks"}
_STREAM_SHARDS = 64


class AnnotatedFolder:
    """Images with what one kind of file says of them.

    Args:
        folder: The folder.
        kind: A key of `KINDS`.
        readers: Split to a function that reads it, and gives the data set and notes.
    """

    def __init__(self, folder: Path, kind: str, readers: dict[str, Callable[[str], tuple[Any, list[str]]]]) -> None:
        self.folder, self.kind = folder, kind
        self.splits: dict[str, Any] = {
            name: readers[name] for name in ("train", "validation", "test") if name in readers
        }

    def load(self, split: str, streaming: bool, cache_dir: str | None) -> Any:
        """The `datasets` object of a split: {image, objects} with boxes, {image, label} with masks.

        Raises:
            UserError: A file is damaged.
        """
        dataset, notes = self.splits[split](split)
        for note in notes:
            logger.warning("%s: %s", self.folder, note)
        return as_stream(dataset, min(_STREAM_SHARDS, max(1, len(dataset)))) if streaming else dataset


def find_annotations(folder: Path, kind: str | None = None) -> AnnotatedFolder | None:
    """Find boxes or masks in a folder of images; None if there are none.

    Args:
        folder: The folder. One that holds nothing but another folder, as VOCdevkit does, is opened.
        kind: A key of `KINDS`, where there are several.

    Raises:
        UserError: There are several kinds and none is named, or none of the kind that is named.
    """
    inside = subfolders(folder)
    while len(inside) == 1 and not images_in(folder) and split_in(inside[0].name) is None and not _has_files(folder):
        folder = inside[0]
        inside = subfolders(folder)
    found = {name: find(folder) for name, find in _FINDERS.items() if kind in (None, name)}
    found = {name: readers for name, readers in found.items() if readers}
    if kind is not None and not found:
        raise UserError(f"{folder}: there are no {KINDS[kind]} here")
    if len(found) > 1:
        held = " and ".join(KINDS[name] for name in found)
        choices = " or ".join(f"{folder}:{name}" for name in found)
        raise UserError(f"{folder} holds {held}; say which with --dataset {choices}")
    return next((AnnotatedFolder(folder, name, readers) for name, readers in found.items()), None)


def named_kind(name: str) -> tuple[Path, str] | None:
    """The folder and the kind of `FOLDER:coco` and the like; None for any other name."""
    path, _, kind = name.rpartition(":")
    return (Path(path).expanduser(), kind) if kind in KINDS and Path(path).expanduser().is_dir() else None


Readers = dict[str, Callable[[str], tuple[Any, list[str]]]]


def _boxes(read: Callable[[], Boxes]) -> Callable[[str], tuple[Any, list[str]]]:
    def load(split: str) -> tuple[Any, list[str]]:
        found = read()
        return boxes_dataset(found, split), found.notes

    return load


def _coco(folder: Path) -> Readers:
    return {split: _boxes(partial(read_coco, folder, path)) for split, path in coco_files(folder).items()}


def _yolo(folder: Path) -> Readers:
    return {split: _boxes(partial(read_yolo, folder, *pair)) for split, pair in yolo_folders(folder).items()}


def _voc(folder: Path) -> Readers:
    return {split: _boxes(partial(read_voc, pairs)) for split, pairs in voc_images(folder).items()}


def _masks(folder: Path) -> Readers:
    return {split: partial(masks_dataset, pairs) for split, pairs in mask_pairs(folder).items()}


def _has_files(folder: Path) -> bool:
    return any(path.suffix.lower() in (".json", ".xml", ".txt", ".yaml") for path in folder.iterdir())


_FINDERS: dict[str, Callable[[Path], Readers]] = {"coco": _coco, "yolo": _yolo, "voc": _voc, "masks": _masks}
