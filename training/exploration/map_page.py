"""The map of a set as a page of its own: a canvas to zoom and drag, with the image under the pointer."""

import base64
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladder_model_cards.figures.style import COLOURS, css

from .collection import Collection

TEMPLATE = Path(__file__).with_name("map.html")
MOST_CLASSES = COLOURS
"""Classes with a colour of their own; further ones share grey."""


def map_page(collection: Collection, plane: npt.NDArray[np.float32], prefix: str) -> str:
    """Write the page.

    Args:
        collection: The images.
        plane: (count, 2), from 0 to 1.
        prefix: Address below which `/thumb/ROW` gives the images.
    """
    classes = [name for name in dict.fromkeys(collection.labels) if name]
    common = sorted(classes, key=lambda name: -collection.labels.count(name))[:MOST_CLASSES] if classes else []
    numbers = {name: number for number, name in enumerate(sorted(common))}
    kinds = np.array([numbers.get(label, MOST_CLASSES) for label in collection.labels], np.uint8)
    data = {
        "points": base64.b64encode(plane.astype("<f4").tobytes()).decode(),
        "kinds": base64.b64encode(kinds.tobytes()).decode(),
        "classes": sorted(common),
        "keys": [*(f"c{number}" for number in range(MOST_CLASSES)), "soft"],
        "prefix": prefix,
    }
    text = json.dumps(data).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("__STYLE__", css()).replace("__DATA__", text)
