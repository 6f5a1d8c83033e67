"""Label maps hold the class numbers that were drawn, at the pixels where the image shows them."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from helpers.models import tiny_native_backbone
from ladder_training.data.left_out import told_once
from ladder_training.errors import UserError
from ladder_training.evaluation import segmentation
from ladder_training.evaluation.semantic_segmentation.data import LabelledImages, read_label_map
from ladder_training.images.orientation import orient

SMALL = {"device": "cpu", "steps": 2, "crop_size": 32, "head_channels": 8, "batch_size": 2, "head": "upernet"}


def encoded(pixels: np.ndarray, kind: str = "PNG", orientation: int | None = None) -> dict:
    buffer = io.BytesIO()
    picture = PILImage.fromarray(pixels)
    exif = PILImage.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    picture.save(buffer, kind, exif=exif.tobytes() if orientation is not None else b"")
    return {"bytes": buffer.getvalue(), "path": None}


def drawn(height: int = 40, width: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """A bright corner on dark noise, which is not the same after any turn, and its label map."""
    image = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    label = np.zeros((height, width), np.uint8)
    label[:12, :28] = 1
    image[label == 1] = 230
    return image, label


def labelled(images: list[dict], labels: list[dict]) -> Dataset:
    features = Features({"image": Image(), "label": Image()})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def read(image: dict, label: dict) -> tuple[np.ndarray, np.ndarray]:
    return LabelledImages(labelled([image], [label]), "image", "label", "train").read(0)


def assert_fits(image: np.ndarray, label: np.ndarray) -> None:
    assert image.shape[:2] == label.shape
    assert np.array_equal(image.mean(axis=2) > 150, label == 1)


def test_a_jpeg_is_no_label_map() -> None:
    label = drawn()[1] * 100
    assert np.unique(read_label_map(encoded(label), "")).tolist() == [0, 100]
    for value in (encoded(label, "JPEG"), PILImage.open(io.BytesIO(encoded(label, "JPEG")["bytes"]))):
        with pytest.raises(UserError, match=r"^image 3: the label map is a JPEG, whose compression changes") as caught:
            read_label_map(value, "image 3")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_map_of_the_stored_pixels_is_turned_with_its_image(orientation: int) -> None:
    image, label = drawn()
    assert_fits(*read(encoded(image, orientation=orientation), encoded(label)))
    # A map that was drawn on the image as shown stays as it is.
    shown = np.ascontiguousarray(orient(label[..., None], orientation)[..., 0])
    assert_fits(*read(encoded(image, orientation=orientation), encoded(shown)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("width", [40, 56])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_map_with_the_same_orientation_is_turned_alike(orientation: int, width: int, kind: str) -> None:
    image, label = drawn(width=width)
    assert_fits(*read(encoded(image, orientation=orientation), encoded(label, kind, orientation=orientation)))


@pytest.mark.parametrize(("orientation", "width"), [(2, 56), (3, 56), (4, 56), (6, 40), (3, 40)])
def test_where_sizes_do_not_tell_the_turn_it_is_refused(orientation: int, width: int) -> None:
    image, label = drawn(width=width)
    with pytest.raises(UserError, match=rf"image 0 of split train: .*EXIF orientation \({orientation}\)"):
        read(encoded(image, orientation=orientation), encoded(label))


def test_other_sizes_are_refused() -> None:
    image, label = drawn()
    for orientation in (None, 6):
        with pytest.raises(UserError, match=r"the image is \d+ x \d+ pixels, its label map 50 x 40"):
            read(encoded(image, orientation=orientation), encoded(np.ascontiguousarray(label[:, :50])))


def test_the_task_says_what_it_turned_and_refuses_before_it_trains() -> None:
    image, label = drawn()
    plain, turned = encoded(image), encoded(image, orientation=6)
    gap = encoded(label * 5)
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    train = labelled([plain, turned], [gap, gap])
    notes = segmentation(backbone, train, test_dataset=train, **SMALL).notes
    assert "2 label maps were turned as the EXIF orientation turns their images" in notes
    assert "only 2 of the class numbers 0 to 5 occur in split train: 0, 5" in notes
    unclear = labelled([encoded(image, orientation=3)], [gap])
    with pytest.raises(UserError, match=r"image 0 of split test: .*may be turned already or not"):
        segmentation(backbone, train, test_dataset=unclear, **SMALL)
    lossy = labelled([plain], [encoded(label, "JPEG")])
    with pytest.raises(UserError, match="image 0 of split test: the label map is a JPEG"):
        segmentation(backbone, train, test_dataset=lossy, **SMALL)


def test_classes_that_only_one_split_has_are_said() -> None:
    image, _ = drawn()
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    two = np.zeros(image.shape[:2], np.uint8)
    two[:, 25:] = 1
    three = two.copy()
    three[20:, :25] = 2
    plain = encoded(image)
    all_three, first_two = labelled([plain], [encoded(three)]), labelled([plain], [encoded(two)])
    notes = segmentation(backbone, all_three, test_dataset=first_two, **SMALL).notes
    assert "classes with pixels in split train, but not in test: 2" in notes
    notes = segmentation(backbone, first_two, test_dataset=all_three, num_classes=3, **SMALL).notes
    assert "classes of the scored split without a training pixel: 2" in notes
    with pytest.raises(UserError, match=r"class 2 is not one of the 2 classes that are fitted on"):
        segmentation(backbone, first_two, test_dataset=all_three, **SMALL)


def test_images_of_ten_bits_are_said_to_become_dark(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 1024, (40, 56), dtype=np.uint16)
    pixels[0, 0] = 1023
    deep, (_, label) = encoded(pixels), drawn()
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    data = labelled([deep], [encoded(label)])
    with told_once():
        segmentation(backbone, data, test_dataset=data, **SMALL)
    assert "only the 5 darkest of 256 levels are used" in capsys.readouterr().out
    with told_once():
        segmentation(backbone, data, test_dataset=data, image_range=(0, 1023), **SMALL)
    assert "darkest" not in capsys.readouterr().out


def test_a_label_map_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.png")
    with pytest.raises(UserError, match="the label map cannot be read \\(not a regular file\\)"):
        read_label_map({"bytes": None, "path": str(tmp_path / "map.png")}, "image 0")


def test_numbers_that_are_no_classes_are_refused_before_memory_is_taken() -> None:
    image, label = drawn()
    instances = np.where(label == 1, 2_000_000_000, 0).astype(np.int32)
    data = LabelledImages(labelled([encoded(image)], [encoded(instances, "TIFF")]), "image", "label", "train")
    with pytest.raises(UserError, match=r"2000000000 is no class number: the label map seems to hold instances"):
        data.histogram(255)
    with pytest.raises(UserError, match=r"class 2000000000 is not one of the 2 classes"):
        data.histogram(255, 2)
    plain = labelled([encoded(image)], [encoded(label)])
    with pytest.raises(UserError, match=r"num_classes must be .*65536.*got 100000000"):
        segmentation(tiny_native_backbone(), plain, test_dataset=plain, num_classes=100_000_000, **SMALL)


def test_training_maps_of_one_class_teach_nothing() -> None:
    """Whatever the number of the class is; with class 1 alone every prediction was right."""
    image, label = drawn()
    both, one = (labelled([encoded(image)], [encoded(values)]) for values in (label, np.ones_like(label)))
    for settings in ({}, {"num_classes": 2}):
        with pytest.raises(UserError, match="split train has one class only"):
            segmentation(tiny_native_backbone(), one, test_dataset=both, **settings, **SMALL)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "^image 3 has no label map: take such images out, or draw one$"),
        ({"bytes": b"no image", "path": None}, r"cannot be read \(not an image\): write it again, or take the image"),
    ],
)
def test_a_label_map_that_is_missing_or_damaged_is_named_with_a_remedy(value: dict | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_label_map(value, "image 3")


def test_an_image_that_cannot_be_read_comes_with_a_remedy() -> None:
    image, label = drawn()
    bad = {"bytes": b"no image", "path": None}
    data = labelled([encoded(image), bad], [encoded(label)] * 2)
    with pytest.raises(UserError, match=r"cannot be read: .*; this task leaves no image out: write that one again"):
        segmentation(tiny_native_backbone(), data, test_dataset=data, **SMALL)


def test_a_batch_norm_that_gets_one_value_says_what_to_do() -> None:
    """The pooled map of the head has a single cell."""
    image, label = drawn()
    data = labelled([encoded(image)], [encoded(label)])
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    with pytest.raises(UserError, match=r"batch norm cannot train on one image .* use a batch_size of 2 or more"):
        segmentation(backbone, data, test_dataset=data, **{**SMALL, "batch_size": 1})
