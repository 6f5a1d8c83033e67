"""How images are prepared unless a recipe or a model's own preprocessor_config.json says otherwise."""

# ImageNet's statistics per channel, of pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DEFAULT_IMAGE_SIZE = 224
"""Side of the images that a network sees, in pixels."""

CROP_FRACTION = 0.875
"""Share of the resized shorter side that the centre crop keeps: 224 of 256, the ImageNet protocol."""

LEAST_CROP = 0.1
"""Smallest share that may be asked for: the image is then enlarged tenfold, and a hundredth of its area is seen."""

SMALL_IMAGE_SIZE = 128
"""Below this size the centre crop keeps the whole shorter side."""


def shorter_side(image_size: int) -> int:
    """Shorter side in pixels to which an image is resized before its centre crop of `image_size` is taken.

    Evaluation, the monitoring of a run and the published preprocessor all use this rule, so that their accuracies can
    be compared. The ImageNet protocol cuts off a border because its photographs show their object in the middle of
    surroundings. Data sets of small images (CIFAR, digits) are framed tightly already: there the border that the crop
    would cut off is part of the object, so below `SMALL_IMAGE_SIZE` nothing is cut off.
    """
    return image_size if image_size < SMALL_IMAGE_SIZE else round(image_size / CROP_FRACTION)


def crop_fraction(image_size: int) -> float:
    """Share of the resized shorter side that the centre crop of `image_size` pixels keeps."""
    return image_size / shorter_side(image_size)
