"""The same three pictures as COCO, YOLO and VOC: the same boxes; masks beside images; several kinds are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ladder_training import load_image_stream
from ladder_training.data.annotations.coco import coco_files
from ladder_training.data.annotations.rows import oriented_size
from ladder_training.data.columns import without_decoding
from ladder_training.data.sources import split_names
from ladder_training.errors import UserError
from ladder_training.evaluation.object_detection.data import DetectionImages, check_layout, decode_mask
from ladder_training.evaluation.semantic_segmentation.data import label_map_column, read_label_map
from ladder_training.images.decode import decode_image

BOXES = {"a": [("cat", (10, 20, 30, 40))], "b": [("dog", (0, 0, 50, 25)), ("cat", (60, 30, 40, 50))], "c": []}
"""Picture -> name and x, y, width, height of its objects; pictures have 100 x 80 pixels."""
NAMES = ["cat", "dog"]
PLACES = [("train/images", "train/masks"), ("images/training", "annotations/training")]


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (80, 100, 3), dtype=np.uint8)).save(path)


def coco(stems, extra: list[dict] | None = None) -> dict:
    images = [{"id": 10 + index, "file_name": f"{stem}.jpg"} for index, stem in enumerate(stems)]
    annotations = [
        {"id": 1, "image_id": image["id"], "category_id": {"cat": 3, "dog": 7}[name], "bbox": list(box)}
        for image, stem in zip(images, stems, strict=True)
        for name, box in BOXES[stem]
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations + (extra or []), "categories": categories}


def as_coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, stems in (("train2017", "ab"), ("val2017", "c")):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco(stems)))
        (root / "annotations" / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')
        for index, stem in enumerate(stems):
            picture(root / split / f"{stem}.jpg", index)


def as_roboflow_coco(root: Path) -> None:
    for split, stems in (("train", "ab"), ("valid", "c")):
        for index, stem in enumerate(stems):
            picture(root / split / f"{stem}.jpg", index)
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco(stems)))


def yolo_lines(stem: str) -> str:
    lines = []
    for name, (x, y, width, height) in BOXES[stem]:
        shares = ((x + width / 2) / 100, (y + height / 2) / 80, width / 100, height / 80)
        lines.append(" ".join([str(NAMES.index(name)), *map(str, shares)]))
    return "\n".join(lines)


def as_yolo(root: Path) -> None:
    for split, stems in (("train", "ab"), ("val", "c")):
        for stem in stems:
            picture(root / "images" / split / f"{stem}.jpg")
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split / f"{stem}.txt").write_text(yolo_lines(stem))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")


def as_yolo_beside(root: Path) -> None:
    for split, stems in (("train", "ab"), ("valid", "c")):
        for stem in stems:
            picture(root / split / f"{stem}.jpg")
            (root / split / f"{stem}.txt").write_text(yolo_lines(stem))
    (root / "classes.txt").write_text("cat\ndog\n")


def voc_xml(stem: str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox></object>"
        for name, (x, y, width, height) in BOXES[stem]
    )
    return f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"


def as_voc(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    for stem in "abc":
        picture(folder / "JPEGImages" / f"{stem}.jpg")
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{stem}.xml").write_text(voc_xml(stem))
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("c\n")


def as_voc_beside(root: Path) -> None:
    for split, stems in (("train", "ab"), ("valid", "c")):
        for stem in stems:
            picture(root / split / f"{stem}.jpg")
            (root / split / f"{stem}.xml").write_text(voc_xml(stem))


@pytest.mark.parametrize("write", [as_coco, as_roboflow_coco, as_yolo, as_yolo_beside, as_voc, as_voc_beside])
def test_the_same_boxes_come_out_of_every_layout(tmp_path, write):
    write(tmp_path / "set")
    assert split_names(tmp_path / "set") == ["train", "validation"]
    train = load_image_stream(tmp_path / "set", split="train")
    check_layout(train, "train")
    category = train.features["objects"]["category"].feature
    assert category.names == NAMES
    found = {Path(row["image"]["path"]).stem: row["objects"] for row in train.cast_column("image", undecoded())}
    assert found.keys() == {"a", "b"}
    for stem, objects in found.items():
        assert [category.int2str(number) for number in objects["category"]] == [name for name, _ in BOXES[stem]]
        np.testing.assert_allclose(objects["bbox"], [box for _, box in BOXES[stem]], atol=1e-4)
        assert objects["area"] == pytest.approx([box[2] * box[3] for _, box in BOXES[stem]])
    empty = load_image_stream(tmp_path / "set", split="validation")
    assert empty[0]["objects"]["bbox"] == []


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("write", [as_coco, as_roboflow_coco, as_yolo, as_yolo_beside, as_voc, as_voc_beside])
def test_images_are_found_where_the_folder_is_named_from_the_working_directory(tmp_path, monkeypatch, write, streaming):
    write(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    rows = without_decoding(load_image_stream("set", split="train", streaming=streaming), "image")
    assert sorted(decode_image(row["image"]).shape for row in rows) == [(80, 100, 3)] * 2


def undecoded():
    import datasets

    return datasets.Image(decode=False)


def test_masks_of_coco_are_polygons_or_codes(tmp_path):
    triangle = [[10.0, 20.0, 40.0, 20.0, 10.0, 60.0]]
    square = {"image_id": 10, "category_id": 3, "bbox": [10, 20, 30, 40], "segmentation": triangle, "area": 600}
    crowd = {"image_id": 10, "category_id": 7, "bbox": [0, 0, 2, 80], "iscrowd": 1}
    crowd["segmentation"] = {"size": [80, 100], "counts": [0, 160, 7840]}
    for name, extra in (("polygons", [square]), ("codes", [square, crowd])):
        content = coco("c", extra)
        picture(tmp_path / name / "c.jpg")
        (tmp_path / name / "boxes.json").write_text(json.dumps(content))
        data = load_image_stream(tmp_path / name)
        objects = data[0]["objects"]
        mask = decode_mask(objects["segmentation"][0], 80, 100)
        assert mask.sum() == pytest.approx(600, rel=0.05) and mask[21, 11] and not mask[59, 39]
        assert objects["area"][0] == 600 and objects["iscrowd"] == [False, True][: len(extra)]
        images = DetectionImages(
            data,
            [reader(data).read(data[0], "fit")],
            "image",
            masks=True,
            flip=False,
        )
        assert images[0][1]["masks"].shape == (1, 80, 100)
    assert decode_mask(objects["segmentation"][1], 80, 100)[:, :2].all()


def reader(data):
    from ladder_training.evaluation.object_detection.data import ObjectReader

    return ObjectReader(data, "train", data, "train")


def test_polygons_of_yolo_have_masks(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.1 0.25 0.4 0.25 0.1 0.75\n")
    data = load_image_stream(tmp_path)
    objects = data[0]["objects"]
    np.testing.assert_allclose(objects["bbox"], [[10, 20, 30, 40]], atol=1e-4)
    assert objects["area"] == pytest.approx([600]) and objects["category"] == [1]
    assert decode_mask(objects["segmentation"][0], 80, 100).sum() == pytest.approx(600, rel=0.05)


def test_difficult_objects_of_voc_are_crowds(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc_xml("b").replace("<difficult>0", "<difficult>1", 1))
    assert load_image_stream(tmp_path)[0]["objects"]["iscrowd"] == [True, False]


@pytest.mark.parametrize(("images", "masks"), PLACES)
def test_masks_beside_images(tmp_path, images, masks):
    for index in range(3):
        picture(tmp_path / images / f"{index}.jpg", index)
        (tmp_path / masks).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((80, 100), index, np.uint8)).save(tmp_path / masks / f"{index}.png")
    data = load_image_stream(tmp_path)
    assert label_map_column(data, "image", None, "train") == "label"
    assert [int(np.asarray(row["label"]).max()) for row in data] == [0, 1, 2]


@pytest.mark.parametrize("trust", [False, True])
def test_masks_are_found_where_the_folder_is_named_from_the_working_directory(tmp_path, monkeypatch, trust):
    for index in range(3):
        picture(tmp_path / "set/images" / f"{index}.jpg", index)
        (tmp_path / "set/masks").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((80, 100), index, np.uint8)).save(tmp_path / "set/masks" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    data = load_image_stream("set", trust_paths=trust)
    for index, row in enumerate(without_decoding(data, "image", "label")):
        assert decode_image(row["image"]).shape == (80, 100, 3) and Path(row["label"]["path"]).is_file()
        assert Image.open(row["label"]["path"]).getextrema() == (index, index)


def test_binary_masks_become_background_and_one_class(tmp_path, caplog):
    for index in range(3):
        picture(tmp_path / "images" / f"{index}.jpg")
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = np.zeros((80, 100), np.uint8)
        mask[:, :50] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}_mask.png")
    data = load_image_stream(tmp_path)
    values = read_label_map(data.cast_column("label", undecoded())[0]["label"], "mask")
    assert np.unique(values).tolist() == [0, 1] and values[:, :50].all()
    assert "0 and 255 only" in caplog.text


def test_several_kinds_are_refused_and_one_can_be_named(tmp_path):
    as_voc(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    (folder / "SegmentationClass").mkdir()
    Image.fromarray(np.ones((80, 100), np.uint8)).save(folder / "SegmentationClass" / "a.png")
    with pytest.raises(UserError, match=r"holds VOC boxes and masks; say which with --dataset .*:voc or .*:masks"):
        load_image_stream(folder)
    assert len(load_image_stream(f"{folder}:voc")) == 2
    assert load_image_stream(f"{folder}:masks").column_names == ["image", "label"]
    with pytest.raises(UserError, match="there are no COCO boxes"):
        load_image_stream(f"{folder}:coco")


def test_damaged_files_are_named(tmp_path):
    as_yolo(tmp_path / "yolo")
    (tmp_path / "yolo/labels/train/a.txt").write_text("0 0.5 0.5\n")
    with pytest.raises(UserError, match=r"a.txt:1: neither 'class x y width height' nor a polygon"):
        load_image_stream(tmp_path / "yolo")
    as_voc_beside(tmp_path / "voc")
    (tmp_path / "voc/train/a.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"a.xml is no whole VOC file"):
        load_image_stream(tmp_path / "voc")
    (tmp_path / "coco").mkdir()
    picture(tmp_path / "coco" / "other.jpg")
    (tmp_path / "coco" / "x.json").write_text(json.dumps(coco("ab")))
    with pytest.raises(UserError, match="none of its images is in"):
        load_image_stream(tmp_path / "coco")


def test_folders_of_classes_stay_folders_of_classes(tmp_path):
    for name in ("cats", "dogs"):
        picture(tmp_path / name / "a.jpg")
        (tmp_path / name / "a.txt").write_text("a photograph of a pet")
    (tmp_path / "about.json").write_text('{"made": "today"}')
    assert load_image_stream(tmp_path).features["label"].names == ["cats", "dogs"]


def test_another_json_file_beside_images_is_no_coco_file(tmp_path):
    picture(tmp_path / "a.jpg")
    (tmp_path / "run.json").write_text('{"datasets": [{"name": "digits", "images": 1428}]}')
    assert coco_files(tmp_path) == {}
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert coco_files(tmp_path) == {"train": tmp_path / "boxes.json"}


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_the_size_of_a_turned_picture_is_that_of_the_shown_one(kind: str, tmp_path: Path) -> None:
    for orientation, size in ((1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (30, 20)).save(tmp_path / f"turned.{kind}", exif=exif)
        assert oriented_size(tmp_path / f"turned.{kind}") == size
