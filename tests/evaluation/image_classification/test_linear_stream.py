"""The linear classifiers trained on a stream of augmented images."""

from ladder_training.evaluation.image_classification.linear_stream import readable_images


def test_the_share_of_unreadable_images_is_that_of_the_split() -> None:
    """An estimate from a part that was held out by chance would refuse 2 of 212 images, or not, by its draw."""
    assert readable_images(212, held=19, fraction=0.1, unreadable=2) == 210
    assert readable_images(None, held=19, fraction=0.1, unreadable=2) == 190
