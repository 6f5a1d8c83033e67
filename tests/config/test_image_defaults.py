"""The rule for the centre crop."""

import pytest

from ladder_training.config.image_defaults import crop_fraction, shorter_side


@pytest.mark.parametrize(("size", "side"), [(32, 32), (127, 127), (128, 146), (160, 183), (224, 256)])
def test_small_images_are_not_cropped_and_large_ones_as_on_imagenet(size, side):
    assert shorter_side(size) == side
    assert crop_fraction(size) == pytest.approx(size / side)
