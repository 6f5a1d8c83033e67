"""The boxes of benchmarks/study/pets_boxes.py, by hand."""

import runpy

import numpy as np
import pytest

from helpers.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "study" / "pets_boxes.py"


@pytest.mark.parametrize("animal", [1, 2])
def test_the_box_holds_the_animal_and_its_border_band(animal):
    label = np.zeros((6, 9), dtype=np.uint8)
    label[2:5, 3:6] = 255
    label[3, 4] = animal
    found = runpy.run_path(str(SCRIPT))["boxed"]({"label": label})
    assert (found["width"], found["height"]) == (9, 6)
    assert found["objects"] == {"bbox": [[3, 2, 3, 3]], "category": [animal - 1], "area": [9], "iscrowd": [False]}


def test_the_box_ends_with_the_image():
    label = np.zeros((4, 5), dtype=np.uint8)
    label[1:, 2:] = 1
    assert runpy.run_path(str(SCRIPT))["boxed"]({"label": label})["objects"]["bbox"] == [[2, 1, 3, 3]]
