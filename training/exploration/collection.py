"""The images of a set with their embeddings: what the page looks things up in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..data.sources import load_image_stream
from ..errors import BadImageError, UserError
from ..evaluation.embedding.options import EmbedOptions
from ..evaluation.embedding.rows import SplitRows, open_split
from ..evaluation.embedding.task import embed
from ..images.decode import decode_image
from .names import embeddings_file
from .neighbours import NeighbourIndex, clusters
from .options import ExploreOptions

Pixels = npt.NDArray[np.uint8]
SMALLEST = 64
"""Shorter side in pixels below which an image is enlarged for the page, so that a finger can point into it."""

CLUSTERS = 10
"""Groups of a map that is coloured by cluster: one for each colour."""


@dataclass
class Collection:
    """A set of images, seen by one model.

    Attributes:
        ids: Of each image.
        splits: Name of the split of each image.
        labels: Class of each image; empty strings if there are no labels.
        embeddings: Stage -> (count, channels), float32, rows of length 1.
        images: Gives the undecoded image of a row.
    """

    ids: list[str]
    splits: list[str]
    labels: list[str]
    embeddings: dict[str, npt.NDArray[np.float32]]
    images: "StoredImages"
    _indices: dict[str, NeighbourIndex] = field(default_factory=dict, repr=False)
    _clusters: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stages(self) -> list[str]:
        """Names of the stages, first stage first."""
        return list(self.embeddings)

    def index(self, stage: str) -> NeighbourIndex:
        """The neighbour index of a stage; built when it is first asked for."""
        if stage not in self._indices:
            self._indices[stage] = NeighbourIndex(self.embeddings[stage])
        return self._indices[stage]

    @property
    def has_labels(self) -> bool:
        """Whether any image has a label."""
        return any(self.labels)

    def clusters(self, stage: str) -> list[str]:
        """The group of each image by the features of a stage, "cluster 1" the largest; computed once."""
        if stage not in self._clusters:
            self._clusters[stage] = [f"cluster {group + 1:02d}" for group in clusters(self.embeddings[stage], CLUSTERS)]
        return self._clusters[stage]

    def title(self, row: int) -> str:
        """What stands below an image."""
        return f"{self.labels[row]} · {self.ids[row]}" if self.labels[row] else self.ids[row]

    def image(self, row: int, side: int) -> Pixels:
        """Decode an image as uint8 (height, width, 3) with a shorter side of about `side` pixels."""
        return shown(decode_image(self.images.undecoded(row), min_size=side), side)


class StoredImages:
    """Undecoded images of rows of a table of embeddings, by split and id."""

    def __init__(self, splits: Sequence[SplitRows], names: Sequence[tuple[str, str]], root: str | None) -> None:
        self._splits = {split.name: split for split in splits}
        self._places: dict[tuple[str, str], int] = {}
        for split in splits:
            for position, name in enumerate(split.names or ()):
                below = Path(name).relative_to(root).as_posix() if root and Path(name).is_relative_to(root) else name
                self._places[split.name, below] = position
        self._names = list(names)

    def undecoded(self, row: int) -> Any:
        """The stored image of a row."""
        split, name = self._names[row]
        part = self._splits[split]
        return part.dataset[self._places[split, name]][part.image]


def open_collection(options: ExploreOptions, model: str, folder: Path) -> Collection:
    """Embed a data set, unless an earlier call has done so, and open the result.

    Args:
        options: Which images.
        model: Which model.
        folder: Where the file of embeddings is kept.

    Raises:
        UserError: there is no such model or data set, or the data set is a stream.
    """
    file = folder / embeddings_file(model)
    asked = EmbedOptions(
        model=model,
        dataset=options.dataset,
        output=str(file),
        split=options.split,
        image_column=options.image_column,
        label_column=options.label_column,
        trust_paths=options.trust_paths,
        device=options.device,
        normalize=True,
    )
    embed(asked)
    ids, splits, texts, embeddings = read_embeddings(file)
    root = Path(options.dataset).expanduser()
    rows = []
    for name in dict.fromkeys(splits):
        dataset = load_image_stream(
            options.dataset, split=name, image_column=options.image_column, trust_paths=options.trust_paths
        )
        rows.append(
            open_split(dataset, name, image_column=options.image_column, label_column=None, part_images=len(dataset))
        )
    images = StoredImages(rows, list(zip(splits, ids, strict=True)), str(root) if root.is_dir() else None)
    if not ids:
        raise UserError(f"{options.dataset} holds no image that can be read")
    return Collection(ids, splits, texts, embeddings, images)


def read_embeddings(file: Path) -> tuple[list[str], list[str], list[str], dict[str, npt.NDArray[np.float32]]]:
    """Read what `ladder embed` wrote: ids, splits and labels of the images, and stage -> (count, channels)."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(file)
    columns = set(table.column_names)
    stages = [name for name in table.column_names if name not in ("id", "split", "label", "label_name")]
    labels = table["label_name"] if "label_name" in columns else table["label"] if "label" in columns else None
    ids, splits = table["id"].to_pylist(), table["split"].to_pylist()
    texts = [""] * len(ids) if labels is None else ["" if one is None else str(one) for one in labels.to_pylist()]
    return ids, splits, texts, {stage: _matrix(table[stage]) for stage in stages}


def shown(pixels: Pixels, side: int) -> Pixels:
    """Scale an image to a shorter side of `side`; a small one is enlarged without smoothing."""
    height, width = pixels.shape[:2]
    scale = max(side, SMALLEST) / min(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)


def dropped_image(image: Any) -> Pixels:
    """Decode an image that was dropped on the page.

    Raises:
        UserError: it is no image that can be read.
    """
    try:
        return decode_image(image)
    except BadImageError as error:
        raise UserError(f"this image cannot be read: {error}") from error


def _matrix(column: Any) -> npt.NDArray[np.float32]:
    """A column of equally long lists as a matrix."""
    values = column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(len(values), -1), np.float32)
