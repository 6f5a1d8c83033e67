"""The map of a set as a page of its own: a canvas to zoom and drag, with the image under the pointer."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladder_model_cards.figures.style import COLOURS, css

TEMPLATE = Path(__file__).with_name("map.html")
MOST_CLASSES = COLOURS
"""Classes with a colour of their own; further ones share grey."""


def map_page(groups: Sequence[str], plane: npt.NDArray[np.float32], prefix: str) -> str:
    """Write the page.

    Args:
        groups: Class or cluster of each image; an empty one has no colour of its own.
        plane: (count, 2), from 0 to 1.
        prefix: Address below which `/thumb/ROW` gives the images.
    """
    sizes = Counter(group for group in groups if group)
    common = sorted(name for name, _ in sizes.most_common(MOST_CLASSES))
    numbers = {name: number for number, name in enumerate(common)}
    kinds = np.array([numbers.get(group, MOST_CLASSES) for group in groups], np.uint8)
    data = {
        "points": base64.b64encode(plane.astype("<f4").tobytes()).decode(),
        "kinds": base64.b64encode(kinds.tobytes()).decode(),
        "classes": common,
        "keys": [*(f"c{number}" for number in range(MOST_CLASSES)), "soft"],
        "prefix": prefix,
    }
    text = json.dumps(data).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("__STYLE__", css()).replace("__DATA__", text)
