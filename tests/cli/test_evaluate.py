"""`ladder evaluate`: the untrained network beside the model, a single folder of classes, and the next command."""

import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.models import tiny_native_backbone
from helpers.pictures import natural_image
from ladder_training import evaluation
from ladder_training.cli.entry import main
from ladder_training.evaluation.untrained import untrained_copy
from ladder_training.models.processor import image_processor


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_native_backbone(seed=5).save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    return folder


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """One folder per class and no splits: 15 dark and 15 bright pictures."""
    for index in range(30):
        path = tmp_path / "photos" / ("dark" if index % 2 else "bright") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = natural_image(40, 40, seed=index) // 3 + (0 if index % 2 else 160)
        Image.fromarray(pixels.astype("uint8")).save(path)
    return tmp_path / "photos"


def test_a_folder_of_classes_is_evaluated_beside_the_untrained_network(model, classes, capsys):
    assert (
        main(["evaluate", "knn", "--model", str(model), "--dataset", str(classes), "--k", "3", "--device", "cpu"]) == 0
    )
    said = capsys.readouterr().out
    assert "scored on 6 (held-out)" in said
    assert "train is the only split: 20 % of every class (6 images) held out by content (seed 0)" in said
    saved = json.loads((model / "evaluation" / "knn-photos.json").read_text())
    assert saved["count"] == {"fit": 24, "score": 6} and saved["split"] == "held-out"
    with untrained_copy(str(model), seed=0) as folder:
        alone = evaluation.knn(folder, str(classes), k=3, device="cpu")
    assert saved["untrained"] == {
        name: {key: round(value, 6) for key, value in row.items()} for name, row in alone.metrics.items()
    }
    rows = [line.split() for line in said.splitlines()]
    shown = next(row for row in rows if row[:1] == ["stage4"])
    numbers = saved["metrics"]["stage4"]["accuracy"], saved["untrained"]["stage4"]["accuracy"]
    assert shown[1:3] == [f"{number:.4f}" for number in numbers] and shown[-1] == "6"
    assert rows[-1][:4] == ["next:", "ladder", "finetune", "classification"]


def test_the_untrained_network_can_be_left_out(model, classes, capsys):
    words = ["evaluate", "knn", "--model", str(model), "--dataset", str(classes), "--device", "cpu", "--no-untrained"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["accuracy", "mean_class_accuracy"]
    assert "untrained" not in json.loads((model / "evaluation" / "knn-photos.json").read_text())


def test_an_untrained_copy_has_other_weights_and_the_same_settings(model):
    from ladder_training.evaluation.backbone import load_backbone, load_image_settings

    with untrained_copy(str(model), seed=0) as folder:
        settings, first = load_image_settings(folder), load_backbone(folder).state_dict()
    with untrained_copy(str(model), seed=0) as folder:
        again = load_backbone(folder).state_dict()
    own = load_backbone(str(model)).state_dict()
    assert not Path(folder).exists() and settings == load_image_settings(str(model))
    weights = [name for name in own if own[name].ndim > 1]
    assert all(first[name].equal(again[name]) and not first[name].equal(own[name]) for name in weights)
