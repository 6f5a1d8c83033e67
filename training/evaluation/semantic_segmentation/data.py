"""Reading and augmenting images with label maps, in the layout {image, label (mode L, class numbers, 255 ignored)}."""

from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ...errors import BadImageError, UserError
from ...images.decode import OpenedImage, open_image
from ...images.value_range import ValueRange
from ...loading.progress import progress
from ..backbone import ImageSettings
from ..image_transforms import WITHOUT_SKIPPING, read_image, resize, size_with_shorter_side, to_tensor
from ..options import MOST_CLASSES, SegmentationOptions
from ..splits import check_column, columns_of, is_streaming, undecoded
from .label_maps import read_label_map, read_label_map_of

__all__ = ["LabelledImages", "TrainingCrops", "label_map_column", "read_label_map", "resize_labels"]

LABEL_NAMES = ("label", "labels", "annotation", "mask", "segmentation_mask", "segmentation", "label_map", "target")


def label_map_column(dataset: Any, image_column: str, asked: str | None, split: str) -> str:
    """Find the column that holds the label maps.

    Raises:
        UserError: the data is streamed, there is no such column, or it does not hold images.
    """
    from datasets import Image as ImageFeature

    if is_streaming(dataset):
        raise UserError("segmentation needs its data on disk: do not stream it")
    features = dataset.features
    maps = [name for name in dataset.column_names if isinstance(features[name], ImageFeature) and name != image_column]
    if asked is not None:
        check_column(dataset, asked, "label_column")
        if asked not in maps:
            raise UserError(f"label_column {asked!r} of split {split} holds no label maps (images of class numbers)")
        return asked
    found = next((name for name in LABEL_NAMES if name in maps), maps[0] if len(maps) == 1 else None)
    if found is None:
        columns = ", ".join(columns_of(dataset))
        raise UserError(f"split {split} has no column of label maps among {columns}; name it with label_column")
    return found


class LabelledImages:
    """The images and label maps of a split, whose sizes are compared when they are read."""

    def __init__(
        self, dataset: Any, image_column: str, label_column: str, split: str, value_range: ValueRange | None = None
    ) -> None:
        self.dataset = undecoded(dataset, image_column, label_column)
        self.labels = self.dataset.select_columns([label_column])
        self.image_column, self.label_column, self.split = image_column, label_column, split
        self.value_range = value_range

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read an image, uint8 (H, W, 3), and its label map, (H, W).

        Raises:
            UserError: their sizes differ, or do not tell whether the map is turned as the image is.
        """
        row, name = self.dataset[index], self._name(index)
        image = read_image(row[self.image_column], name, self.value_range)
        orientation = self._open(row, name).orientation
        label_map, _ = read_label_map_of(row[self.label_column], orientation, image.shape[:2], name)
        return image, label_map

    def count_turned(self) -> int:
        """Count the images that are shown turned by their EXIF orientation and whose label maps are turned alike.

        Raises:
            UserError: the sizes of an image and its label map differ, or do not tell whether the map is turned.
        """
        count = 0
        for index in progress(range(len(self)), f"sizes of {self.split}"):
            row, name = self.dataset[index], self._name(index)
            opened = self._open(row, name)
            shape = (opened.height, opened.width)
            count += read_label_map_of(row[self.label_column], opened.orientation, shape, name)[1]
        return count

    def _open(self, row: dict[str, Any], name: str) -> OpenedImage:
        try:
            return open_image(row[self.image_column])
        except BadImageError as error:
            raise UserError(f"{name} cannot be read: {error}; {WITHOUT_SKIPPING}") from error

    def histogram(self, ignore_index: int, most: int | None = None) -> np.ndarray:
        """Count the pixels of each class in the split, int64 (largest class + 1,).

        Args:
            ignore_index: Value of pixels that are not counted.
            most: Largest number of classes allowed.

        Raises:
            UserError: no pixel has a label, or a value is not a class.
        """
        total = np.zeros(0, np.int64)
        for index in progress(range(len(self)), f"label maps of {self.split}"):
            label_map = read_label_map(self.labels[index][self.label_column], self._name(index))
            values = label_map[label_map != ignore_index].astype(np.int64)
            wrong = 0 if not values.size else values.min() if values.min() < 0 else values.max()
            if most is None and wrong >= MOST_CLASSES:
                # Of each class the head has a map of scores: such a number is an instance, or a colour, not a class.
                raise UserError(
                    f"{self._name(index)}: {wrong} is no class number: the label map seems to hold instances or "
                    f"colours (classes are numbered from 0, below {MOST_CLASSES}; pixels to ignore must be "
                    f"{ignore_index})"
                )
            if wrong < 0 or (most is not None and wrong >= most):
                classes = "a class number" if most is None else f"one of the {most} classes that are fitted on"
                raise UserError(
                    f"{self._name(index)}: class {wrong} is not {classes} (pixels to ignore must be {ignore_index})"
                )
            counts = np.bincount(values)
            length = max(len(total), len(counts))
            total = np.pad(total, (0, length - len(total))) + np.pad(counts, (0, length - len(counts)))
        if total.sum() == 0:
            raise UserError(f"split {self.split} has no labelled pixel")
        return total

    def _name(self, index: int) -> str:
        return f"image {index} of split {self.split}"


class TrainingCrops(Dataset):
    """Images and label maps, scaled, cropped and flipped at random together, as (pixels, label map).

    Items are requested by (index, seed) keys: normalised pixels, float32 (3, size, size), and labels, int64 (size,
    size). Pixels outside the image are 0 (the mean colour), and their labels are ignored.
    """

    def __init__(self, images: LabelledImages, options: SegmentationOptions, settings: ImageSettings) -> None:
        self.images, self.options, self.settings = images, options, settings

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        index, seed = key
        generator = np.random.default_rng(seed)
        image, labels = self.images.read(index)
        height, width = image.shape[:2]
        if self.options.resize_side:
            height, width = size_with_shorter_side(height, width, self.options.resize_side)
        low, high = self.options.scale_range
        scale = generator.uniform(low, high)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        image, labels = resize(image, height, width), resize_labels(labels, height, width)
        size = self.options.crop_size
        top = int(generator.integers(0, max(0, height - size) + 1))
        left = int(generator.integers(0, max(0, width - size) + 1))
        image, labels = image[top : top + size, left : left + size], labels[top : top + size, left : left + size]
        if generator.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        pixels = torch.zeros(3, size, size)
        target = torch.full((size, size), self.options.ignore_index, dtype=torch.long)
        pixels[:, : image.shape[0], : image.shape[1]] = to_tensor(image, self.settings)
        target[: labels.shape[0], : labels.shape[1]] = torch.from_numpy(np.ascontiguousarray(labels).astype(np.int64))
        return pixels, target


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a label map (H, W) by nearest neighbours, which never mixes classes."""
    if labels.shape == (height, width):
        return labels
    narrow = labels if labels.dtype == np.uint8 else labels.astype(np.int32)
    return cv2.resize(narrow, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
