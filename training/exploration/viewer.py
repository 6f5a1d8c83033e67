"""One model's view of a set of images: what is like an image, what is like a point of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..evaluation.backbone import ImageSettings, StageFeatures, load_backbone, load_image_settings
from ..evaluation.features import pooled_features
from ..evaluation.image_transforms import to_tensor
from ..evaluation.untrained import write_untrained
from .collection import Collection, Pixels, open_collection
from .names import short_name
from .options import ExploreOptions
from .points import coloured, seen_square, similar_places

UNTRAINED = "untrained"
POINT_SIDE = 224
"""Side in pixels of the pictures of similar places."""


@dataclass
class Viewer:
    """A model and the images as it sees them.

    Attributes:
        name: What the page calls the model.
        collection: The images.
        backbone: The model, in eval mode.
        settings: How images are prepared for it.
    """

    name: str
    collection: Collection
    backbone: StageFeatures
    settings: ImageSettings

    def embedding(self, pixels: Pixels, stage: str) -> npt.NDArray[np.float32]:
        """The features (channels,) of an image that need not be in the set."""
        square = to_tensor(seen_square(pixels, self.settings), self.settings)[None]
        with torch.inference_mode():
            features = pooled_features(self.backbone, square, next(self.backbone.parameters()).device)
        return features[stage][0].cpu().numpy()

    def like_row(self, row: int, stage: str, count: int) -> list[tuple[int, float]]:
        """Images of the set that are most like one of them: (row, cosine)."""
        return self.collection.index(stage).like(row, count)

    def like_image(self, pixels: Pixels, stage: str, count: int) -> list[tuple[int, float]]:
        """Images of the set that are most like any image: (row, cosine)."""
        cosines, rows = self.collection.index(stage).search(self.embedding(pixels, stage), count)
        return [(int(row), float(one)) for row, one in zip(rows[0], cosines[0], strict=True) if row >= 0]

    def square(self, pixels: Pixels) -> Pixels:
        """The part of an image that the network sees."""
        return seen_square(pixels, self.settings)

    def places_like(
        self, image: Pixels, others: list[tuple[str, Pixels]], across: float, down: float
    ) -> list[tuple[Pixels, str]]:
        """Pictures of what each stage finds similar to a point of an image: (picture, caption).

        Args:
            image: The square with the point.
            others: (caption, image) of further images to look in.
            across: Of the point, from 0 (left) to 1 (right).
            down: Of the point, from 0 (top) to 1 (bottom).
        """
        squares = [image, *(self.square(other) for _, other in others)]
        found = similar_places(self.backbone, self.settings, squares, across, down)
        captions = ["the same image", *(caption for caption, _ in others)]
        return [
            (coloured(square, similar, POINT_SIDE), f"{stage}: {caption}")
            for stage, maps in found.items()
            for square, similar, caption in zip(squares, maps, captions, strict=True)
        ]


def open_viewers(options: ExploreOptions, folder: Path) -> list[Viewer]:
    """Load the model, and the one beside it, and embed the images by each.

    Args:
        options: From the command line.
        folder: Where embeddings are kept.

    Raises:
        UserError: there is no such model or data set.
    """
    names = [options.model, *([options.beside] if options.beside else [])]
    viewers = []
    for name in names:
        reference = name
        if name == UNTRAINED:
            reference = str(folder / UNTRAINED)
            write_untrained(options.model, 0, folder / UNTRAINED)
        collection = open_collection(options, reference, folder)
        backbone = load_backbone(reference, options.device or "cpu", trained_padding=True)
        viewers.append(Viewer(short_name(name), collection, backbone, load_image_settings(reference)))
    return viewers
