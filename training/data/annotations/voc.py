"""Boxes from the XML files of PASCAL VOC and of the tools that write the same."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ...errors import UserError
from .places import IMAGE_FOLDERS, by_stem, files_in, images_in, split_in, subfolders
from .rows import Box, Boxes


def voc_images(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Each image and its XML file, by split.

    It finds `Annotations/` with `JPEGImages/` or `images/`, where `ImageSets/Main/` may name the splits, and XML files
    beside the images, in one folder or in one for each split.
    """
    inside = {path.name.lower(): path for path in subfolders(root)}
    if "annotations" in inside and next(inside["annotations"].glob("*.xml"), None) is not None:
        folder = next((inside[name] for name in IMAGE_FOLDERS if name in inside), inside["annotations"])
        images, files = by_stem(images_in(folder)), by_stem(files_in(inside["annotations"], (".xml",)))
        pairs = {stem: (images[stem], file) for stem, file in files.items() if stem in images}
        listed = voc_splits(root, "Main")
        chosen = {split: [pairs[stem] for stem in stems if stem in pairs] for split, stems in listed.items()}
        return {split: found for split, found in chosen.items() if found} or {"train": list(pairs.values())}
    places = {"train": root, **{split: path for path in subfolders(root) if (split := split_in(path.name))}}
    found: dict[str, list[tuple[Path, Path]]] = {}
    for split, place in places.items():
        files = by_stem(files_in(place, (".xml",)))
        beside = [(image, files[image.stem]) for image in images_in(place) if image.stem in files] if files else []
        if beside:
            found[split] = beside
    return found


def voc_splits(root: Path, task: str) -> dict[str, list[str]]:
    """Names of the images of each split, from `ImageSets/TASK/train.txt` and so on; `trainval` is left out."""
    folder = root / "ImageSets" / task
    splits = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
    return {
        split: [line.split()[0] for line in (folder / name).read_text(encoding="utf-8").splitlines() if line.strip()]
        for split, name in splits.items()
        if (folder / name).is_file()
    }


def read_voc(pairs: list[tuple[Path, Path]]) -> Boxes:
    """Read the XML files of a split. Objects that are marked as difficult are not learned, and no error if found.

    Args:
        pairs: Each image and its file.

    Raises:
        UserError: A file is damaged.
    """
    parsed = [(image, _objects(file)) for image, file in pairs]
    names = sorted({name for _, objects in parsed for name, _, _ in objects})
    number = {name: index for index, name in enumerate(names)}
    images = [
        (image, [Box(bbox, number[name], crowd=difficult) for name, bbox, difficult in objects])
        for image, objects in parsed
    ]
    return Boxes(names, images)


def _objects(file: Path) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    """Name, box and difficulty of each object. VOC counts pixels from 1 and includes the last one."""
    try:
        root = ElementTree.parse(file).getroot()
        found = []
        for entry in root.iter("object"):
            box = entry.find("bndbox")
            name = (entry.findtext("name") or "").strip()
            if box is None or not name:
                raise ValueError("an object has no name or no bndbox")
            x0, y0, x1, y1 = (float(box.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax"))
            bbox = (x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)
            found.append((name, bbox, (entry.findtext("difficult") or "0").strip() == "1"))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{file} is no whole VOC file: {error}") from error
    return found
