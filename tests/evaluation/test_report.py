"""What an evaluation leaves behind, any model as its input, lazy imports, options and recipes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.models import tiny_native_backbone
from ladder_training.errors import UserError
from ladder_training.evaluation import semi_supervised
from ladder_training.evaluation.backbone import StageFeatures, default_output, load_backbone, load_image_settings
from ladder_training.evaluation.options import TASK_OPTIONS, KnnOptions, read_options, read_recipe
from ladder_training.evaluation.report import EvaluationResult, file_name
from ladder_training.evaluation.splits import resolve_splits


def make_result(**changes):
    values = {
        "task": "knn",
        "dataset": "user/pets",
        "split": "test",
        "fit_split": "train",
        "model": "run",
        "metrics": {"stage1": {"accuracy": 0.25}, "stage2": {"accuracy": 0.75}, "all": {"accuracy": 0.875}},
        "protocol": {"rates": (0.1, 1.0)},
        "seed": 3,
        "count": {"fit": 100, "score": 50},
        "seconds": 12.3456789,
    }
    return EvaluationResult(**(values | changes))


def test_the_table_has_stages_their_mean_and_all():
    lines = make_result(notes=["k is 9"]).table().splitlines()
    assert "fitted on 100 images (train)" in lines[0]
    assert "scored on 50 (test)" in lines[0]
    assert [line.split() for line in lines[1:6]] == [
        ["accuracy", "images"],
        ["stage1", "0.2500", "50"],
        ["stage2", "0.7500", "50"],
        ["mean", "0.5000", "50"],
        ["all", "0.8750", "50"],
    ]
    assert lines[6] == "note: k is 9"


def test_a_result_prints_as_its_table_and_shows_it_in_a_notebook():
    result = make_result(dataset="<b>", notes=["k & 9"], untrained={"stage1": {"accuracy": 0.125}})
    assert str(result) == result.table()
    shown = result._repr_html_()
    assert "<th>stage2</th>" in shown and "66 75.0%,transparent 75.0%" in shown and ">0.1250</td>" in shown
    assert "on &lt;b&gt;:" in shown and "note: k &amp; 9" in shown and "<b>" not in shown
    assert shown.count("<tr>") == 1 + 4  # two stages, their mean, all


def test_the_table_shows_the_untrained_network_beside_the_first_metric(tmp_path):
    metrics = {name: {"accuracy": value, "recall": value} for name, value in (("stage1", 0.5), ("stage2", 0.75))}
    untrained = {name: {"accuracy": value, "recall": value} for name, value in (("stage1", 0.25), ("stage2", 0.0))}
    result = make_result(metrics=metrics, untrained=untrained)
    assert [line.split() for line in result.table().splitlines()[1:5]] == [
        ["accuracy", "untrained", "recall", "images"],
        ["stage1", "0.5000", "0.2500", "0.5000", "50"],
        ["stage2", "0.7500", "0.0000", "0.7500", "50"],
        ["mean", "0.6250", "0.1250", "0.6250", "50"],
    ]
    assert json.loads(result.save(tmp_path).read_text())["untrained"] == untrained


def test_the_file_is_strict_json_with_every_key(tmp_path):
    result = make_result(metrics={"box": {"AP": np.float64(0.5), "AP_large": float("nan")}})
    path = result.save(tmp_path)
    assert path == tmp_path / "evaluation" / "knn-user--pets.json"
    saved = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert saved["metrics"] == {"box": {"AP": 0.5, "AP_large": None}}
    assert saved["protocol"] == {"rates": [0.1, 1.0]}
    assert saved.keys() == {
        *(["task", "dataset", "split", "fit_split", "model", "metrics", "protocol", "seed", "count", "seconds"]),
        *(["notes", "classes", "per_class", "versions", "date"]),
    }
    assert "torch" in saved["versions"]
    assert "- " in result.table() or "-" in result.table().split()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digits", "digits"), ("user/name", "user--name"), ("my data (2)", "my-data-2"), ("../x", "x"), ("/", "dataset")],
)
def test_file_names_are_safe(name, expected):
    assert file_name(name) == expected


def test_a_data_set_with_a_name_too_long_for_a_file_has_a_file_of_its_own(tmp_path):
    names = [letter * 250 + end for letter in ("x", "あ") for end in ("1", "2")]
    paths = [make_result(dataset=name).save(tmp_path) for name in names]
    assert len({*paths}) == 4 and all(len(path.name.encode()) <= 150 + len("knn-.json") for path in paths)
    assert [json.loads(path.read_text())["dataset"] for path in paths] == names
    assert file_name("x" * 150) == "x" * 150


def test_the_package_is_light_and_gives_functions():
    code = (
        "import sys; import ladder_training.evaluation as e; import ladder_training.evaluation.options\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from ladder_training.evaluation import knn, linear, detection, segmentation, semi_supervised, knn_accuracy\n"
        "import ladder_training.evaluation.object_detection.task\n"
        "import ladder_training.evaluation.semantic_segmentation.task\n"
        "assert all(map(callable, (e.knn, e.linear, e.detection, e.segmentation, e.semi_supervised, e.knn_accuracy)))\n"
        "assert 'evaluate' not in sys.modules and 'sklearn' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_every_option_says_what_it_is():
    import dataclasses

    for options in TASK_OPTIONS.values():
        options()
        for field in dataclasses.fields(options):
            assert len(field.metadata["help"]) > 10, (options, field.name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be greater than 0"),
        ({"k": True}, "k must be a whole number"),
        ({"temperature": "warm"}, "temperature must be a number"),
        ({"tempeature": 1}, "did you mean temperature"),
        ({"crop_fraction": 1.5}, "at most 1"),
    ],
)
def test_wrong_options_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        read_options(KnnOptions, settings)


def test_recipes_with_unknown_keys_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("k: 5\nneighbors: 3\n")
    with pytest.raises(UserError, match="unknown setting 'neighbors'"):
        read_recipe("knn", path)
    path.write_text("k: 5\n")
    assert read_recipe("knn", path) == {"k": 5}
    with pytest.raises(UserError, match="coco_1x"):
        read_recipe("detection", "coco")


@pytest.fixture(scope="module")
def resnet():
    return tiny_native_backbone()


def test_every_kind_of_model_gives_the_online_features(resnet, tmp_path):
    """A folder of each kind and each loaded model: the same features, the online network's and not the target's."""
    from transformers import ResNetForImageClassification, ResNetModel

    from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining, LadderSiameseModel

    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = load_backbone(resnet)(pixels)
    assert list(expected) == ["stage1", "stage2", "stage3", "stage4"]
    config = LadderSiameseConfig(backbone_config=resnet.config, projection_hidden_size=16, projection_size=8)
    pretraining, plain = LadderSiameseForPreTraining(config), LadderSiameseModel(config)
    pretraining.backbone.load_state_dict(resnet.state_dict())
    plain.backbone.load_state_dict(resnet.state_dict())
    run = tmp_path / "run"
    resnet.save_pretrained(run)
    pretraining.save_pretrained(run / "pretraining")
    pretraining.save_pretrained(run / "checkpoint-5")
    base, classifier = ResNetModel.from_pretrained(run), ResNetForImageClassification.from_pretrained(run)
    references = [run, str(run / "pretraining"), run / "checkpoint-5", pretraining, plain, base, classifier]
    for reference in [*references, StageFeatures(resnet)]:
        found = load_backbone(reference)
        assert not found.training
        for name, values in found(pixels).items():
            torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-5)
    for folder in (run, run / "pretraining", run / "checkpoint-5"):
        assert default_output(folder).resolve() == run.resolve()
    assert default_output("user/name") is None


def test_image_settings_come_from_the_run(resnet, tmp_path):
    from transformers import BitImageProcessor

    run = tmp_path / "run"
    resnet.save_pretrained(run)
    (run / "pretraining").mkdir()
    resnet.save_pretrained(run / "pretraining")
    BitImageProcessor(
        size={"shortest_edge": 80}, crop_size=64, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5]
    ).save_pretrained(run)
    for reference in (run, run / "pretraining"):
        settings = load_image_settings(reference)
        assert (settings.size, settings.crop_fraction) == (64, 0.8)
        assert settings.mean == (0.1, 0.2, 0.3)
    assert load_image_settings(run, size=96).size == 96
    assert load_image_settings(run, size=96).mean == (0.1, 0.2, 0.3)
    assert load_image_settings(resnet).size == 224


def labelled(count, seed, classes=2):
    from datasets import ClassLabel, Dataset, Features, Image

    generator = np.random.default_rng(seed)
    labels = [index % classes for index in range(count)]
    images = generator.integers(0, 60, (count, 40, 40, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[..., label] += 180
    features = Features({"image": Image(), "label": ClassLabel(num_classes=classes)})
    return Dataset.from_dict({"image": list(images), "label": labels}, features=features)


def test_splits_prefer_test_and_take_what_is_asked_for():
    from datasets import DatasetDict

    data = DatasetDict({"train": labelled(4, 0), "validation": labelled(4, 1), "test": labelled(6, 2)})
    assert resolve_splits(data).score_split == "test"
    assert resolve_splits(data, split="validation").score_split == "validation"
    del data["test"]
    assert resolve_splits(data).score_split == "validation"
    with pytest.raises(UserError, match=r"no split to score .*; its splits are train, validation"):
        resolve_splits(data, split="test")
    with pytest.raises(UserError, match="no split to fit on"):
        resolve_splits(DatasetDict({"test": data["train"], "validation": data["train"]}))


def test_of_a_single_split_the_same_share_of_every_class_is_held_out(tmp_path):
    data = labelled(60, 0)
    splits = resolve_splits(data, seed=3)
    assert (splits.fit_split, splits.score_split) == ("train", "held-out")
    assert splits.notes == [
        "train is the only split: 20 % of every class (12 images) held out by content (seed 3) and scored; "
        "the rest fitted on"
    ]
    assert (len(splits.fit), len(splits.score)) == (48, 12)
    whole, held = ([part["label"].count(number) for number in range(2)] for part in (data, splits.score))
    assert held == [round(0.2 * count) for count in whole]
    assert resolve_splits(data.shuffle(seed=1), seed=3).score["label"].count(0) == held[0]
    pixels = {image.tobytes() for image in resolve_splits(data.shuffle(seed=1), seed=3).score["image"]}
    assert pixels == {image.tobytes() for image in splits.score["image"]}
    assert pixels != {image.tobytes() for image in resolve_splits(data, seed=4).score["image"]}
    with pytest.raises(UserError, match="has one split, train, and 4 images are too few"):
        resolve_splits(labelled(4, 0))


def test_a_single_stream_is_split_without_overlap():
    stream = labelled(60, 0).to_iterable_dataset(num_shards=3)
    splits = resolve_splits(stream)
    fit, score = ([row["image"]["bytes"] for row in part] for part in (splits.fit, splits.score))
    assert len(fit) + len(score) == 60 and 4 <= len(score) <= 20 and not set(fit) & set(score)


def test_a_local_folder_of_parquet_files_works_by_name(resnet, tmp_path):
    from ladder_training.evaluation import knn

    folder = tmp_path / "colours"
    folder.mkdir()
    for split, count in (("train", 12), ("test", 6)):
        labelled(count, count).to_parquet(str(folder / f"{split}.parquet"))
    result = knn(resnet, str(folder), output=tmp_path / "run", image_size=32, k=3)
    assert (result.dataset, result.split) == ("colours", "test")
    assert result.path == tmp_path / "run" / "evaluation" / "knn-colours.json"
    assert result.metrics["all"]["accuracy"] == 1.0


def test_semi_supervised_uses_few_labels_and_learns(resnet, tmp_path):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    settings = {
        "image_size": 32,
        "label_fraction": 0.2,
        "learning_rates": (0.03, 0.1),
        "epochs": 1,
        "min_steps": 20,
        "batch_size": 8,
        "min_crop_scale": 0.5,
    }
    train, test = labelled(60, 0), labelled(20, 1)
    result = semi_supervised(resnet, train, test_dataset=test, output=tmp_path, device="cpu", **settings)
    assert result.count == {"fit": 12, "score": 20}
    assert result.path.name.startswith("semi_supervised_20pct-")
    assert result.metrics["fine_tuned"]["accuracy"] > 0.9
    assert set(result.protocol["holdout_accuracy"]) == {"0.03", "0.1"}
    assert all(torch.equal(before[name], value) for name, value in resnet.state_dict().items())
    turned = test.map(lambda row: {"label": 1 - row["label"]})
    other = semi_supervised(resnet, train, test_dataset=turned, device="cpu", **settings)
    assert other.protocol["chosen_learning_rate"] == result.protocol["chosen_learning_rate"]
    assert other.protocol["holdout_accuracy"] == result.protocol["holdout_accuracy"]
    assert other.metrics["fine_tuned"]["accuracy"] < 0.1


def test_semi_supervised_does_not_stream(resnet):
    with pytest.raises(UserError, match="do not stream"):
        semi_supervised(resnet, labelled(8, 0).to_iterable_dataset(), test_dataset=labelled(4, 1), device="cpu")
