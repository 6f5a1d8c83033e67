"""Detection: the metric against hand-made cases, boxes through every step, and a detector that learns four images."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from helpers.models import tiny_native_backbone
from ladder_training.data.left_out import told_once
from ladder_training.errors import UserError
from ladder_training.evaluation import detection
from ladder_training.evaluation.backbone import ImageSettings, load_backbone
from ladder_training.evaluation.object_detection.coco_metric import average_precision, coco_metric
from ladder_training.evaluation.object_detection.data import DetectionImages, ObjectReader
from ladder_training.evaluation.object_detection.model import build_detector
from ladder_training.evaluation.object_detection.task import train_detector
from ladder_training.evaluation.options import DetectionOptions, read_recipe
from ladder_training.evaluation.tuning import SeededBatches, TunedBackbone, make_accelerator


def reference(boxes, labels, crowd=None, area=None):
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return {
        "boxes": boxes,
        "labels": labels,
        "iscrowd": crowd or [False] * len(labels),
        "area": area or (boxes[:, 2] * boxes[:, 3]).tolist(),
        "height": 200,
        "width": 200,
    }


def prediction(boxes, labels, scores):
    return {"boxes": np.asarray(boxes, float).reshape(-1, 4), "labels": labels, "scores": scores}


def test_perfect_boxes_score_one():
    truth = [reference([[10, 10, 50, 50], [100, 100, 20, 30]], [0, 1]), reference([[5, 5, 40, 20]], [0])]
    found = [prediction(entry["boxes"], entry["labels"], [0.9] * len(entry["labels"])) for entry in truth]
    scores = average_precision(found, truth, 2)
    assert scores["AP"] == pytest.approx(1.0)
    assert scores["per_class"] == pytest.approx([1.0, 1.0])


def test_a_shifted_box_counts_up_to_its_overlap():
    """100 x 100 shifted by 25: IoU 75 / 125 = 0.6, right at thresholds .50, .55, .60 of the ten."""
    scores = average_precision([prediction([[25, 0, 100, 100]], [0], [0.5])], [reference([[0, 0, 100, 100]], [0])], 1)
    assert scores["AP50"] == pytest.approx(1.0)
    assert scores["AP75"] == 0.0
    assert scores["AP"] == pytest.approx(0.3)


def test_missing_and_wrong_boxes():
    truth = [reference([[0, 0, 50, 50], [100, 100, 50, 50]], [0, 0])]
    half = average_precision([prediction([[0, 0, 50, 50]], [0], [0.9])], truth, 1)
    assert half["AP"] == pytest.approx(51 / 101)  # precision 1 at recalls 0, .01, ... .50 of 101
    first_wrong = average_precision(
        [prediction([[0, 150, 40, 40], [0, 0, 50, 50], [100, 100, 50, 50]], [0, 0, 0], [0.9, 0.8, 0.7])], truth, 1
    )
    assert first_wrong["AP"] == pytest.approx(2 / 3)  # precision 1/2 then 2/3; the envelope is 2/3 everywhere
    assert average_precision([prediction([], [], [])], truth, 1)["AP"] == 0.0
    wrong_class = average_precision([prediction([[0, 0, 50, 50]], [1], [0.9])], truth, 2)
    assert wrong_class["AP"] == 0.0
    assert math.isnan(wrong_class["per_class"][1])


def test_crowd_regions_neither_help_nor_harm():
    box, crowd = [0, 0, 50, 50], [100, 100, 80, 80]
    found = [prediction([box, [110, 110, 30, 30], [130, 130, 30, 30]], [0, 0, 0], [0.5, 0.9, 0.8])]
    with_crowd = average_precision(found, [reference([box, crowd], [0, 0], [False, True])], 1)
    assert with_crowd["AP"] == pytest.approx(1.0)
    as_object = average_precision(found, [reference([box, crowd], [0, 0])], 1)
    assert as_object["AP"] < 0.5


def test_masks_are_scored_by_their_pixels():
    from faster_coco_eval import mask

    left, whole = np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
    left[:100, :60] = 1
    whole[:100, :100] = 1
    truth = [{**reference([[0, 0, 100, 100]], [0]), "masks": [mask.encode(np.asfortranarray(whole))]}]
    found = [{**prediction([[0, 0, 100, 100]], [0], [0.5]), "masks": [mask.encode(np.asfortranarray(left))]}]
    assert average_precision(found, truth, 1, "bbox")["AP"] == pytest.approx(1.0)
    scores = average_precision(found, truth, 1, "segm")
    assert (scores["AP50"], scores["AP75"]) == (pytest.approx(1.0), 0.0)


def test_the_metric_is_one_of_evaluate_and_forgets():
    import evaluate

    metric = coco_metric(1)
    assert isinstance(metric, evaluate.Metric)
    truth, found = reference([[0, 0, 50, 50]], [0]), prediction([[0, 0, 50, 50]], [0], [0.9])
    metric.add(prediction=found, reference=truth)
    metric.add_batch(predictions=[found], references=[truth])
    assert metric.compute()["AP"] == pytest.approx(1.0)
    wrong = prediction([[100, 100, 50, 50]], [0], [0.9])
    assert metric.compute(predictions=[wrong], references=[truth])["AP"] == 0.0


def shapes(count=4, *, names=("square", "bar"), masks=False, seed=0):
    """Bright squares and bars on noise; image 3 has no object where there are that many, and image 2 a crowd."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from datasets import List as ListOf

    generator = np.random.default_rng(seed)
    rows = {"image": [], "objects": []}
    for index in range(count):
        image = generator.integers(0, 60, (64, 80, 3), dtype=np.uint8)
        objects = {"bbox": [], "category": [], "area": [], "iscrowd": []} | ({"segmentation": []} if masks else {})
        for kind in () if index == 3 else (0, 1):
            width, height = ((24, 24), (40, 12))[kind]
            x, y = int(generator.integers(0, 80 - width)), (2, 44)[kind]
            image[y : y + height, x : x + width, kind] = 250
            objects["bbox"].append([x, y, width, height])
            objects["category"].append(kind)
            objects["area"].append(width * height)
            objects["iscrowd"].append(index == 2 and kind == 1)
            if masks:
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                objects["segmentation"].append([[float(value) for value in corners]])
        rows["image"].append(image)
        rows["objects"].append(objects)
    fields = {
        "bbox": ListOf(ListOf(Value("float32"), length=4)),
        "category": ListOf(ClassLabel(names=list(names))),
        "area": ListOf(Value("float32")),
        "iscrowd": ListOf(Value("bool")),
    } | ({"segmentation": ListOf(ListOf(ListOf(Value("float32"))))} if masks else {})
    return Dataset.from_dict(rows, features=Features({"image": Image(), "objects": fields}))


def read_shapes(data, **options):
    objects = ObjectReader(data, "train", data, "train").read_all("fit")
    return DetectionImages(data, objects, "image", **{"masks": False, "flip": False} | options)


def test_targets_hold_what_the_picture_shows():
    images = read_shapes(shapes(4, masks=True), masks=True, flip=True)
    flipped = set()
    for index in range(3):
        for seed in range(6):
            pixels, target = images[(index, seed)]
            assert len(target["boxes"]) == (1 if index == 2 else 2)
            for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
                bright = pixels[label - 1] > 0.9
                rows, columns = bright.nonzero(as_tuple=True)
                found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == [int(value) for value in found]
                assert torch.equal(mask.bool(), bright)
            flipped.add((index, int(target["boxes"][0, 0])))
    assert len(flipped) > 3  # more places than images: some were mirrored
    pixels, target = images[(3, 0)]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 64, 80)


def test_boxes_outside_the_image_are_cut_and_empty_ones_dropped():
    data = shapes(1)
    row = data[0]
    row["objects"] = {
        "bbox": [[-10, -10, 30, 30], [70, 50, 40, 40], [5, 5, 0, 10], [90, 5, 10, 10]],
        "category": [0, 1, 0, 0],
        "area": [900, 1600, 0, 100],
        "iscrowd": [False] * 4,
    }
    from datasets import Dataset

    _, target = read_shapes(Dataset.from_list([row], features=data.features))[(0, 0)]
    assert target["boxes"].tolist() == [[0, 0, 20, 20], [70, 50, 80, 64]]


@pytest.fixture(scope="module")
def backbone():
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return tiny_native_backbone(hidden_sizes=[16, 24, 32, 48], out_features=stages)


SMALL = {
    "batch_size": 4,
    "short_sides": (64,),
    "long_side": 96,
    "pyramid_channels": 16,
    "head_channels": 32,
    "proposals": 60,
    "warmup_steps": 5,
}


@pytest.mark.parametrize("masks", [False, True])
def test_the_loss_falls_on_four_images(backbone, masks):
    images = read_shapes(shapes(4, masks=masks), masks=masks)
    options = DetectionOptions(steps=25, keep_empty=True, **SMALL)
    torch.manual_seed(0)
    detector = build_detector(load_backbone(backbone), 2, options, ImageSettings(), masks=masks)
    losses = train_detector(detector, images, options, 0, make_accelerator("cpu"))
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_frozen_batch_norm_stays_and_train_moves(backbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images = read_shapes(shapes(4))
    for mode in ("frozen", "train"):
        options = DetectionOptions(steps=2, batch_norm=mode, **SMALL)
        detector = build_detector(load_backbone(backbone), 2, options, ImageSettings(), masks=False)
        train_detector(detector, images, options, 0, make_accelerator("cpu"))
        after = detector.backbone.body.features.backbone.state_dict()
        norms = [name for name in before if ".normalization." in name and "num_batches" not in name]
        same = [torch.equal(before[name], after[name]) for name in norms]
        assert all(same) if mode == "frozen" else not any(same)
        convolutions = [name for name in before if name.endswith("convolution.weight")]
        assert not any(torch.equal(before[name], after[name]) for name in convolutions)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_frozen_backbone_keeps_every_bit_and_the_rest_of_the_detector_learns(backbone):
    images = read_shapes(shapes(4))
    options = DetectionOptions(steps=2, freeze_backbone=True, **SMALL)
    detector = build_detector(load_backbone(backbone), 2, options, ImageSettings(), masks=False)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    train_detector(detector, images, options, 0, make_accelerator("cpu"))
    after = detector.state_dict()

    learned = {".".join(name.split(".")[:2]) for name, value in before.items() if not torch.equal(value, after[name])}
    assert learned == {"backbone.pyramid", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor"}


def test_a_frozen_backbone_stays_in_eval_mode(backbone):
    tuned = TunedBackbone(load_backbone(backbone), "train", trainable=False)
    tuned.train()
    assert not any(module.training for module in tuned.features.modules())
    assert not any(parameter.requires_grad for parameter in tuned.parameters())


def test_batches_cover_every_image_once_per_pass_over_all_processes():
    whole = list(SeededBatches(10, 4, 5, seed=3))
    assert sorted(index for batch in whole for index, _ in batch) == sorted(list(range(10)) * 2)
    halves = [list(SeededBatches(10, 2, 5, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert sorted(batch) == sorted(first + second)
    seeds = [seed for batch in whole for _, seed in batch]
    assert len(set(seeds)) == 20


def test_task_writes_its_file_and_repeats(backbone, tmp_path):
    data = {"train": shapes(6), "validation": shapes(3, seed=1)}
    results = [detection(backbone, data, output=tmp_path, device="cpu", steps=6, **SMALL) for _ in range(2)]
    saved = json.loads(results[0].path.read_text())
    assert (saved["task"], saved["split"], saved["classes"]) == ("detection", "validation", ["square", "bar"])
    assert {"AP", "AP50", "AP75"} <= saved["metrics"]["box"].keys()
    assert saved["count"] == {"fit": 5, "score": 3}
    assert any("1 training images without a box" in note for note in saved["notes"])
    assert results[0].to_dict()["metrics"] == results[1].to_dict()["metrics"]
    assert results[0].protocol["last_loss"] == results[1].protocol["last_loss"]
    assert "AP50" in results[0].table()


def test_images_of_ten_bits_are_said_to_become_dark(backbone, capsys):
    data = shapes(2)
    pixels = np.random.default_rng(0).integers(0, 1024, (96, 96), dtype=np.uint16)
    pixels[0, 0] = 1023
    deep = {"bytes": cv2.imencode(".png", pixels)[1].tobytes(), "path": None}
    features = data.features
    data = data.map(lambda row: {"image": deep}, features=features)
    with told_once():
        detection(backbone, data, test_dataset=data, device="cpu", steps=1, **SMALL)
    assert "only the 5 darkest of 256 levels are used" in capsys.readouterr().out


def test_two_stages_are_enough_and_unknown_ones_named(backbone):
    data = shapes(2)
    result = detection(backbone, data, test_dataset=data, device="cpu", steps=1, stages=("stage3", "stage4"), **SMALL)
    assert result.protocol["stages"] == ["stage3", "stage4"]
    with pytest.raises(UserError, match="no stage stage9; its stages are stage1"):
        detection(backbone, data, test_dataset=data, device="cpu", steps=1, stages=("stage9",), **SMALL)


def without_objects():
    return shapes(2).remove_columns("objects")


def only_empty_images():
    return shapes(4).select([3])


def extra_category():
    """Plain numbers instead of names, with one that the first data set lacks."""
    from datasets import Dataset

    def plain(values):
        rows = shapes(2).to_list()
        for row in rows:
            row["objects"]["category"] = values
        return Dataset.from_list(rows)

    return plain([0, 1]), plain([0, 7])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (without_objects(), shapes(2)), "no column 'objects' with bbox and category; its columns are image"),
        (lambda: (shapes(2), without_objects()), "no column 'objects'"),
        (lambda: (only_empty_images(), shapes(2)), "no image with a box"),
        (extra_category, "category 7 exists only in split"),
        (lambda: ({"train": shapes(2)}, None), "has one split, train, and 2 images are too few"),
        (lambda: (shapes(2).to_iterable_dataset(), shapes(2)), "do not stream"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(backbone, tmp_path, make, message):
    train, test = make()
    with pytest.raises(UserError, match=message) as error:
        detection(backbone, train, test_dataset=test, output=tmp_path, device="cpu", steps=1, **SMALL)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["coco_1x", "voc0712", "small"])
def test_recipes_are_valid(name):
    DetectionOptions(**read_recipe("detection", name))


def test_categories_of_both_splits_are_matched_by_name():
    data, other = shapes(4), shapes(4, names=("bar", "square"))
    same, swapped = (ObjectReader(data, "train", scored, "test") for scored in (data, other))
    for expected, found in zip(same.read_all("score"), swapped.read_all("score"), strict=True):
        # The second set draws the same pictures and calls the first kind of object "bar".
        assert found.labels.tolist() == [1 - label for label in expected.labels.tolist()]
    assert swapped.names == ["square", "bar"]
    assert same.index.notes == []
    assert swapped.index.notes == ["splits train and test number their classes differently: by name"]
    lacking = ObjectReader(data, "train", shapes(4, names=("square", "ring")), "test")
    with pytest.raises(UserError, match="category ring exists only in split test"):
        lacking.read_all("score")


def object_rows(**fields):
    """One image whose objects are these, and a reader of it."""
    data = shapes(1)
    row = data[0]
    objects = {"bbox": [[0, 0, 20, 20], [5, 5, 10, 10]], "category": [0, 1], **fields}
    return ObjectReader(data, "train", data, "test"), {**row, "objects": objects}


def test_an_area_that_is_missing_is_that_of_the_box():
    """As a NaN it counted in every size."""
    reader, row = object_rows(area=[None, 50.0])
    assert reader.read(row, "score").area.tolist() == [400.0, 50.0]


@pytest.mark.parametrize("name", ["area", "iscrowd", "segmentation"])
def test_a_list_of_another_length_than_the_boxes_is_named(name):
    reader, row = object_rows(**{name: [1]})
    with pytest.raises(UserError, match=f"split test: an image has 2 boxes and 1 entries of {name}"):
        reader.read(row, "score")


def test_a_polygon_needs_three_points():
    data = shapes(1, masks=True)
    reader, row = ObjectReader(data, "train", data, "test"), data[0]
    row["objects"] = {**row["objects"], "segmentation": [[[1.0, 2.0, 3.0]] for _ in row["objects"]["bbox"]]}
    with pytest.raises(
        UserError, match="split train: a polygon of a segmentation has 3 numbers; it needs x, y of three"
    ):
        reader.read(row, "fit")


def test_boxes_without_area_are_counted_of_each_side():
    reader, row = object_rows(bbox=[[0, 0, 20, 20], [5, 5, 0, 10]])
    assert len(reader.read(row, "score")) == 1 and len(reader.read(row, "score")) == 1
    assert reader.without_area == {"fit": 0, "score": 2}


def test_boxes_without_area_are_said(backbone):
    data = shapes()
    rows = data.to_list()
    rows[0]["objects"]["bbox"][0][2] = 0.0
    with_empty = data.from_list(rows, features=data.features)
    result = detection(backbone, data, test_dataset=with_empty, device="cpu", steps=1, **SMALL)
    assert "1 boxes of split test have no area and were left out" in result.notes


def test_a_split_with_nothing_to_score_is_refused_before_training(backbone):
    data = shapes()
    rows = data.to_list()
    for row in rows:
        row["objects"] = {name: [] for name in row["objects"]}
    with pytest.raises(UserError, match="split test has no box to score"):
        detection(
            backbone, data, test_dataset=data.from_list(rows, features=data.features), device="cpu", steps=1, **SMALL
        )


def test_without_any_detection_a_size_that_no_reference_has_is_undefined():
    scores = average_precision([prediction([], [], [])], [reference([[0, 0, 50, 50]], [0])], 2)
    assert scores["AP"] == scores["AP_medium"] == scores["AR100"] == 0.0
    assert math.isnan(scores["AP_small"]) and math.isnan(scores["AP_large"])
    assert scores["per_class"][0] == 0.0 and math.isnan(scores["per_class"][1])
