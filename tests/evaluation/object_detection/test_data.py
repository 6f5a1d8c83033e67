"""Polygons and run-length codes as arrays: the same masks in less memory."""

import sys

import numpy as np
import pytest

from ladder_training.evaluation.object_detection.data import as_arrays, decode_mask


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1.0, 1.0, 9.0, 1.0, 9.0, 7.5, 1.0, 7.25], [12.0, 3.0, 15.0, 3.0, 15.0, 9.0]],
        [1.0, 1.0, 9.0, 1.0, 9.0, 7.5],
        {"size": [10, 20], "counts": [30, 40, 50, 20, 60]},
        [],
    ],
)
def test_arrays_draw_the_same_mask(segmentation: object) -> None:
    compact = as_arrays(segmentation)
    assert np.array_equal(decode_mask(compact, 10, 20), decode_mask(segmentation, 10, 20))
    if segmentation:
        assert decode_mask(compact, 10, 20).any()


def test_a_long_polygon_takes_a_fraction_of_the_memory() -> None:
    polygon = [index / 7 for index in range(2000)]
    as_list = sys.getsizeof(polygon) + sum(map(sys.getsizeof, polygon))
    (array,) = as_arrays([polygon])
    assert sys.getsizeof(array) < as_list / 3.5
    assert array.tolist() == polygon
