"""Reading and augmenting images with label maps, in the layout {image, label (mode L, class numbers, 255 ignored)}."""

import io
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ...errors import UserError
from ...files import bytes_or_path
from ...loading.progress import progress
from ..backbone import ImageSettings
from ..image_transforms import read_image, resize, size_with_shorter_side, to_tensor
from ..options import SegmentationOptions
from ..splits import check_column, columns_of, is_streaming, undecoded

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
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


def read_label_map(value: Any, where: str) -> np.ndarray:
    """Read a label map as class numbers, uint8 or wider (height, width); of a palette image, the indices.

    Args:
        value: {"bytes", "path"} as `datasets` stores it, an array, or a PIL image.
        where: Names the image in messages.

    Raises:
        UserError: the file cannot be read, or is a colour image.
    """
    if isinstance(value, np.ndarray):
        label_map = value
    else:
        try:
            if isinstance(value, dict):
                encoded = bytes_or_path(value)
                value = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
            if value.mode not in INDEX_MODES:
                raise UserError(f"{where}: the label map is a picture of mode {value.mode}, not of class numbers")
            label_map = np.asarray(value)
        except (OSError, TypeError, AttributeError, SyntaxError) as error:
            raise UserError(f"{where}: the label map cannot be read ({error})") from error
    if label_map.ndim != 2:
        raise UserError(f"{where}: the label map has shape {label_map.shape}, not (height, width)")
    return label_map.astype(np.uint8) if label_map.dtype == bool else label_map


class LabelledImages:
    """The images and label maps of a split, whose sizes are compared when they are read."""

    def __init__(self, dataset: Any, image_column: str, label_column: str, split: str) -> None:
        self.dataset = undecoded(dataset, image_column, label_column)
        self.labels = self.dataset.select_columns([label_column])
        self.image_column, self.label_column, self.split = image_column, label_column, split

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read an image, uint8 (H, W, 3), and its label map, (H, W).

        Raises:
            UserError: their sizes differ.
        """
        row = self.dataset[index]
        image = read_image(row[self.image_column], self._name(index))
        label_map = read_label_map(row[self.label_column], self._name(index))
        if image.shape[:2] != label_map.shape:
            raise UserError(
                f"{self._name(index)}: the image is {image.shape[1]} x {image.shape[0]} pixels, its label map "
                f"{label_map.shape[1]} x {label_map.shape[0]}"
            )
        return image, label_map

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
            if values.size and (values.min() < 0 or (most is not None and values.max() >= most)):
                wrong = values.min() if values.min() < 0 else values.max()
                raise UserError(
                    f"{self._name(index)}: class {wrong} is not one of the {most} classes that are fitted on "
                    f"(pixels to ignore must be {ignore_index})"
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
