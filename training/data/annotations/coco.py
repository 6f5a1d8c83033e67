"""Boxes and masks from COCO JSON files."""

import json
from pathlib import Path
from typing import Any

from ...errors import UserError
from .places import IMAGE_FOLDERS, split_in, subfolders
from .rows import Box, Boxes

_HEAD = 4096
_WHOLE = 64 * 2**20
"""Bytes below which a file is read whole to see what it is."""


def coco_files(root: Path) -> dict[str, Path]:
    """The COCO files of a folder, by split: in it, in `annotations/`, or in folders that are named after splits.

    Raises:
        UserError: Several files are of one split.
    """
    places = [root, *(path for path in subfolders(root) if path.name.lower() == "annotations" or split_in(path.name))]
    found: dict[str, list[Path]] = {}
    for place in places:
        for path in sorted(place.glob("*.json")):
            if _is_coco(path):
                split = split_in(path.stem) or (split_in(place.name) if place != root else None) or "train"
                found.setdefault(split, []).append(path)
    chosen: dict[str, Path] = {}
    for split, paths in found.items():
        # COCO itself has captions and keypoints of the same images beside the boxes.
        best = [path for path in paths if path.stem.startswith("instances")] or paths
        if len(best) > 1:
            shown = ", ".join(str(path.relative_to(root)) for path in best[:3])
            raise UserError(f"{root}: several COCO files for the split {split} ({shown}); keep one of them")
        chosen[split] = best[0]
    return chosen


def read_coco(root: Path, path: Path) -> Boxes:
    """Read a COCO file.

    Args:
        root: The data set's folder.
        path: The file.

    Raises:
        UserError: The file is damaged, or none of its images is there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda entry: entry["id"])
        number = {entry["id"]: index for index, entry in enumerate(categories)}
        objects: dict[Any, list[Box]] = {entry["id"]: [] for entry in content["images"]}
        orphans = 0
        for entry in content["annotations"]:
            if entry["image_id"] not in objects or "bbox" not in entry:
                orphans += 1
                continue
            x, y, width, height = map(float, entry["bbox"])
            objects[entry["image_id"]].append(
                Box(
                    (x, y, width, height),
                    number[entry["category_id"]],
                    entry.get("area"),
                    bool(entry.get("iscrowd")),
                    entry.get("segmentation") or None,
                )
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no whole COCO file ({type(error).__name__}: {error})") from error
    folders = _image_folders(root, path)
    images, missing = [], []
    for entry in content["images"]:
        name = str(entry["file_name"])
        place = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if place is None:
            missing.append(name)
        else:
            images.append((place, objects[entry["id"]]))
    if not images:
        shown = missing[0] if missing else "none is named"
        raise UserError(f"{path}: none of its images is in {root} (looked for {shown} in {len(folders)} folders)")
    notes = [f"{len(missing)} images of {path.name} are not there, such as {missing[0]}"] if missing else []
    notes += [f"{orphans} annotations of {path.name} have no box or no image"] if orphans else []
    return Boxes([str(entry["name"]) for entry in categories], images, notes)


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Folders in which the images of a COCO file may be: beside it, and where COCO and its tools put them."""
    found = [path.parent, root]
    for folder in (path.parent, root):
        inside = subfolders(folder)
        pictures = [child for child in inside if child.name.lower() in IMAGE_FOLDERS]
        found += pictures
        for place in (folder, *pictures):
            found += [child for child in subfolders(place) if split_in(child.name) == split_in(path.stem)]
    return list(dict.fromkeys(found))


def _is_coco(path: Path) -> bool:
    """Whether a JSON file begins as a COCO file does, and is not one of captions."""
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(_HEAD)
            if not head.lstrip().startswith("{"):
                return False
            whole = path.stat().st_size < _WHOLE
            head += file.read() if whole else ""
    except (OSError, ValueError):
        return False
    # Other files name images too, such as the record of a run.
    keys = ('"images"', '"annotations"', '"categories"') if whole else ('"images"',)
    return all(key in head for key in keys) and not path.stem.startswith("captions")
