"""Reading images with boxes, in the layout {image, objects {bbox, category, ...}}."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...errors import UserError
from ...images.value_range import ValueRange
from ..classes import ClassIndex
from ..image_transforms import read_image
from ..splits import is_streaming, undecoded

OBJECTS = "objects"
CATEGORY_NAMES = ("category", "categories", "label", "labels", "category_id")
SMALLEST_SIDE = 1e-3


@dataclass
class Objects:
    """The objects of one image.

    Attributes:
        boxes: float32 (n, 4), x, y, width, height in pixels.
        labels: int64 (n,) class numbers from 0.
        area: float32 (n,) in square pixels; as stored, else that of the box.
        iscrowd: bool (n,).
        segmentation: Per object polygons ([[x, y, x, y, ...], ...]) or a run-length code, with arrays for lists of
            numbers; None without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    segmentation: list[Any] | None

    def __len__(self) -> int:
        return len(self.labels)


class ObjectReader:
    """Reads the objects of both splits. The split that is fitted on defines the classes.

    Args:
        fit: Map-style `datasets.Dataset` to fit on.
        fit_split: Its name, for messages.
        score: The data set to score.
        score_split: Its name, for messages.

    Raises:
        UserError: the data is streamed, or has another layout.

    Attributes:
        without_area: Boxes without area that were left out so far, of each side.
    """

    def __init__(self, fit: Any, fit_split: str, score: Any, score_split: str) -> None:
        self.datasets, self.splits = {"fit": fit, "score": score}, {"fit": fit_split, "score": score_split}
        fields = {side: _fields(dataset, self.splits[side]) for side, dataset in self.datasets.items()}
        self.category = {side: next(name for name in CATEGORY_NAMES if name in of) for side, of in fields.items()}
        self.has_masks = all("segmentation" in of for of in fields.values())
        self.without_area = dict.fromkeys(fields, 0)
        fit_feature, score_feature = (fields[side][self.category[side]] for side in ("fit", "score"))
        self.index = ClassIndex(fit_feature, score_feature, fit_split, score_split, what="category")
        self.index.learn(
            value for row in fit.select_columns([OBJECTS]) for value in _field(row[OBJECTS], self.category["fit"])
        )
        if not self.index.names:
            raise UserError(f"split {fit_split} has no boxes")

    @property
    def names(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return self.index.names

    def read(self, row: dict[str, Any], side: str) -> Objects:
        """Read the objects of a row of a split, "fit" or "score"; boxes without area are left out and counted.

        Raises:
            UserError: a class that the split that is fitted on does not have, fields of different lengths, or a mask
                that is no polygon of three points.
        """
        objects, split = row[OBJECTS], self.splits[side]
        boxes = np.asarray(_field(objects, "bbox"), np.float32).reshape(-1, 4)
        values = _field(objects, self.category[side])
        if len(values) != len(boxes):
            raise UserError(f"split {split}: an image has {len(boxes)} boxes and {len(values)} categories")
        numbers = self.index.fit_numbers(values) if side == "fit" else self.index.score_numbers(values)
        labels = np.asarray(numbers, np.int64)
        optional = {name: _field(objects, name) for name in ("area", "iscrowd", "segmentation")}
        for name, entries in optional.items():
            if entries and len(entries) != len(boxes):
                raise UserError(f"split {split}: an image has {len(boxes)} boxes and {len(entries)} entries of {name}")
        of_box = boxes[:, 2] * boxes[:, 3]
        area = np.asarray(optional["area"] or of_box, np.float32)  # an entry that is missing becomes NaN
        area = np.where(np.isfinite(area), area, of_box)
        crowd = np.asarray(optional["iscrowd"] or np.zeros(len(boxes)), bool)
        kept = np.atleast_1d((boxes[:, 2:] > SMALLEST_SIDE).all(axis=1) & np.isfinite(boxes).all(axis=1))
        self.without_area[side] += int((~kept).sum())
        segmentation = None
        if self.has_masks:
            pairs = zip(optional["segmentation"] or [[]] * len(boxes), kept.tolist(), strict=True)
            segmentation = [as_arrays(entry) for entry, keep in pairs if keep]
            for entry in segmentation:
                _check_polygons(entry, split)
        return Objects(boxes[kept], labels[kept], area[kept], crowd[kept], segmentation)

    def read_all(self, side: str) -> list[Objects]:
        """Read the objects of every image of a split, "fit" or "score", without decoding the images."""
        return [self.read(row, side) for row in self.datasets[side].select_columns([OBJECTS])]


class DetectionImages(Dataset):
    """Images and targets in the form that torchvision's detectors expect.

    Args:
        dataset: Map-style data set; only its images are read.
        objects: Objects of each image.
        image_column: Column of the images.
        masks: Whether targets include masks.
        flip: Mirror each image with probability 0.5.
        value_range: As in `ImageSettings`.
        indices: Images to use; default: all.
    """

    def __init__(
        self,
        dataset: Any,
        objects: list[Objects],
        image_column: str,
        *,
        masks: bool,
        flip: bool,
        value_range: ValueRange | None = None,
        indices: list[int] | None = None,
    ) -> None:
        self.dataset, self.objects, self.column = undecoded(dataset, image_column), objects, image_column
        self.masks, self.flip, self.value_range = masks, flip, value_range
        self.indices = list(range(len(objects))) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return float32 (3, H, W) in [0, 1] and {"boxes" x0, y0, x1, y1, "labels" from 1, "masks"} without crowds."""
        position, seed = key if isinstance(key, tuple) else (key, 0)
        index = self.indices[position]
        objects = self.objects[index]
        image = read_image(self.dataset[index][self.column], f"image {index}", self.value_range)
        height, width = image.shape[:2]
        chosen = np.flatnonzero(~objects.iscrowd)
        boxes = objects.boxes[chosen].copy()
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        inside = (boxes[:, 2:] - boxes[:, :2] > SMALLEST_SIDE).all(axis=1)
        boxes, chosen = boxes[inside], chosen[inside]
        target = {"labels": torch.from_numpy(objects.labels[chosen] + 1)}
        if self.masks:
            masks = np.zeros((len(chosen), height, width), np.uint8)
            shapes = objects.segmentation or []
            for number, position in enumerate(chosen):
                masks[number] = decode_mask(shapes[position], height, width)
        flipped = self.flip and np.random.default_rng(seed).random() < 0.5
        if flipped:
            image = image[:, ::-1]
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        target["boxes"] = torch.from_numpy(boxes.astype(np.float32).reshape(-1, 4))
        if self.masks:
            target["masks"] = torch.from_numpy(np.ascontiguousarray(masks[:, :, ::-1] if flipped else masks))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        return pixels, target


def check_layout(dataset: Any, split: str) -> None:
    """Raise a UserError that says what is missing if a split does not have the detection layout."""
    _fields(dataset, split)


def _fields(dataset: Any, split: str) -> dict[str, Any]:
    """Return the features of an object, or raise a UserError as `check_layout` does."""
    if is_streaming(dataset):
        raise UserError("detection needs its data on disk: do not stream it")
    columns = ", ".join(dataset.column_names)
    if OBJECTS not in dataset.column_names:
        raise UserError(f"split {split} has no column {OBJECTS!r} with bbox and category; its columns are {columns}")
    feature = dataset.features[OBJECTS]
    fields = getattr(feature, "feature", feature)
    if not isinstance(fields, dict) or "bbox" not in fields or not any(name in fields for name in CATEGORY_NAMES):
        held = ", ".join(fields) if isinstance(fields, dict) else str(fields)
        raise UserError(f"column {OBJECTS!r} of split {split} must hold bbox and category; it holds {held}")
    return fields


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draw polygons or a run-length code as a mask, uint8 (height, width)."""
    from faster_coco_eval import mask

    return mask.decode(encode_mask(segmentation, height, width)).reshape(height, width)


def as_arrays(segmentation: Any) -> Any:
    """Polygons or a run-length code with arrays for lists of numbers: a list of floats takes four times the memory."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        return {**segmentation, "counts": np.asarray(counts, np.int64)} if isinstance(counts, list) else segmentation
    if not segmentation:
        return []
    polygons = segmentation if isinstance(segmentation[0], list | np.ndarray) else [segmentation]
    return [np.asarray(polygon, np.float64) for polygon in polygons]


def _check_polygons(segmentation: Any, split: str) -> None:
    """Raise a UserError if a polygon, as `as_arrays` returns it, is not one of three points or more."""
    if isinstance(segmentation, dict):
        return
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserError(
                f"split {split}: a polygon of a segmentation has {len(polygon)} numbers; it needs x, y of three points "
                "or more (masks: no trains without them)"
            )


def encode_mask(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Convert polygons or an uncompressed run-length code to a compressed one; a compressed one stays as it is."""
    from faster_coco_eval import mask

    if isinstance(segmentation, dict):
        if isinstance(segmentation.get("counts"), list | np.ndarray):
            return mask.frPyObjects({**segmentation, "counts": list(map(int, segmentation["counts"]))}, height, width)
        return dict(segmentation)
    if not len(segmentation):
        return mask.encode(np.zeros((height, width), np.uint8, order="F"))
    polygons = segmentation if isinstance(segmentation[0], list | np.ndarray) else [segmentation]
    return mask.merge(mask.frPyObjects([list(map(float, polygon)) for polygon in polygons], height, width))


def _field(objects: Any, name: str) -> list[Any]:
    """Read one field of all objects, stored as a dictionary of lists or as a list of dictionaries."""
    if isinstance(objects, dict):
        return list(objects.get(name) or [])
    return [entry.get(name) for entry in objects or [] if name in entry]
