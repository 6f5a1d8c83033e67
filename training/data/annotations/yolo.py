"""Boxes and polygons from YOLO text files."""

from pathlib import Path

from ...errors import UserError
from .places import folder_pairs, images_in, split_in, subfolders
from .rows import Box, Boxes, oriented_size

_NAMES = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")


def yolo_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of images and of YOLO files, by split; both are one folder if the files lie beside the images."""
    pairs = {split: pair for split, pair in folder_pairs(root, ("labels",)).items() if any(pair[1].glob("*.txt"))}
    if pairs:
        return pairs
    places = {"train": root, **{split_in(path.name) or "": path for path in subfolders(root)}}
    places.pop("", None)
    if not any(_beside(place) for place in places.values()):
        return {}
    return {split: (place, place) for split, place in places.items() if images_in(place)}


def read_yolo(root: Path, images: Path, labels: Path) -> Boxes:
    """Read the YOLO files of a split. An image without a file has no object.

    Args:
        root: The data set's folder, where the names of the classes are.
        images: Folder of the images.
        labels: Folder of the text files.

    Raises:
        UserError: A line is no box and no polygon, or there are no images.
    """
    names = _class_names(root)
    found: list[tuple[Path, list[Box]]] = []
    unlabelled = 0
    for image in images_in(images):
        file = labels / f"{image.stem}.txt"
        unlabelled += not file.is_file()
        found.append((image, _boxes(file, image) if file.is_file() else []))
    if not found:
        raise UserError(f"{images}: no images beside the YOLO files of {labels}")
    most = max((box.category for _, boxes in found for box in boxes), default=-1)
    notes = [f"{unlabelled} of {len(found)} images have no YOLO file: taken as images without objects"]
    if most >= len(names):
        if names:
            raise UserError(f"{labels}: class {most} has no name; {root} names {len(names)} classes")
        names = [str(number) for number in range(most + 1)]
        notes.append("the classes have no names (no data.yaml or classes.txt): called by their numbers")
    return Boxes(names or ["0"], found, notes if unlabelled else notes[1:])


def _boxes(file: Path, image: Path) -> list[Box]:
    """The objects of one file: "class x y width height" or "class x y x y x y ...", in shares of the image."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        return []
    width, height = oriented_size(image)
    boxes = []
    for number, words in enumerate(lines, start=1):
        try:
            category, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            category, values = -1, []
        if category < 0 or len(values) < 4 or (len(values) > 4 and (len(values) < 6 or len(values) % 2)):
            raise UserError(f"{file}:{number}: neither 'class x y width height' nor a polygon: {' '.join(words)[:60]}")
        if len(values) == 4:
            across, down = values[2] * width, values[3] * height
            box = (values[0] * width - across / 2, values[1] * height - down / 2, across, down)
            boxes.append(Box(box, category))
            continue
        xs, ys = [value * width for value in values[0::2]], [value * height for value in values[1::2]]
        polygon = [value for point in zip(xs, ys, strict=True) for value in point]
        area = abs(sum(x * ys[i - 1] - xs[i - 1] * y for i, (x, y) in enumerate(zip(xs, ys, strict=True)))) / 2
        box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        boxes.append(Box(box, category, area, segmentation=[polygon]))
    return boxes


def _class_names(root: Path) -> list[str]:
    """Names of the classes: from a YAML file with `names`, else from a text file with a name per line."""
    import yaml

    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            names = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("names")
        except (yaml.YAMLError, AttributeError, OSError) as error:
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}") from error
        if isinstance(names, dict):
            return [str(names[key]) for key in sorted(names)]
        if isinstance(names, list):
            return [str(name) for name in names]
    for name in _NAMES:
        for path in (root / name, root / "labels" / name):
            if path.is_file():
                return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return []


def _beside(folder: Path) -> bool:
    """Whether text files with the names of images lie beside these and hold numbers."""
    for image in images_in(folder)[:100]:
        file = image.with_suffix(".txt")
        if file.is_file():
            words = file.read_text(encoding="utf-8", errors="replace").split(maxsplit=5)[:5]
            if not words:
                continue  # an image without objects
            return len(words) == 5 and all(word.replace(".", "", 1).replace("-", "", 1).isdigit() for word in words)
    return False
