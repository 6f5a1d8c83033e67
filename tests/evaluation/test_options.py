"""Settings of the evaluation tasks: read as recipes for pretraining are, from YAML and from keywords."""

import dataclasses

import pytest

from ladder_training.config.recipe import RECIPE_FOLDER, packaged_recipes
from ladder_training.errors import UserError
from ladder_training.evaluation.embedding.options import EmbedOptions
from ladder_training.evaluation.options import (
    TASK_OPTIONS,
    DetectionOptions,
    KnnOptions,
    LinearOptions,
    SemiSupervisedOptions,
    read_options,
    read_recipe,
)


@pytest.fixture
def recipe_of(tmp_path):
    """Writes a recipe's text to a file and reads it as settings of a task."""

    def read(task: str, text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(task, path)

    return read


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("detection", "learning_rate: 1e-2", {"learning_rate": 0.01}),
        ("detection", "masks: yes", {"masks": "yes"}),
        ("detection", "masks: no\nsteps: 1e3", {"masks": "no", "steps": 1000}),
        ("detection", "keep_empty: yes\nmilestones: 0.5", {"keep_empty": True, "milestones": (0.5,)}),
        ("detection", "batch-size: 3", {"batch_size": 3}),
        ("linear", "learning_rates: [1e-1, 3]\nstandardize: off", {"learning_rates": (0.1, 3.0), "standardize": False}),
        ("segmentation", "stages: [stage4]\nnum_classes: null", {"stages": ("stage4",)}),
        ("knn", "", {}),
    ],
)
def test_recipes_are_read_as_those_for_pretraining(recipe_of, task, text, expected):
    settings = recipe_of(task, text)
    assert settings == expected
    options = read_options(TASK_OPTIONS[task], settings)
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("knn", "k: 5\nk: 7", "'k' is given twice"),
        ("knn", "batch_size: 5\nbatch-size: 7", "'batch-size' is given twice"),
        ("knn", "k: many", r"mine.yaml: k must be a whole number, got 'many'"),
        ("knn", "k: true", "k must be a whole number, got True"),
        ("knn", "k: 2.5", "k must be a whole number, got 2.5"),
        ("knn", "temprature: 3", "unknown setting 'temprature'; did you mean temperature"),
        ("knn", "xyz: 3", "unknown setting 'xyz'; there are split, .*temperature"),
        ("knn", "temperature: .nan", "mine.yaml: temperature must be greater than 0"),
        ("detection", "masks: maybe", "masks must be one of auto, yes, no, got 'maybe'"),
        ("detection", "masks: true", "masks must be text"),
        ("knn", "- k", "must hold `field: value` lines"),
        ("knn", "k: [", "line 1"),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(recipe_of, task, text, message):
    with pytest.raises(UserError, match=message) as error:
        recipe_of(task, text)
    assert "\n" not in str(error.value)


def test_keywords_have_the_same_types_as_recipes():
    assert SemiSupervisedOptions(learning_rates=[1, "1e-2"]).learning_rates == (1.0, 0.01)
    assert DetectionOptions(short_sides=192) == DetectionOptions()
    with pytest.raises(UserError, match="batch_norm must be one of frozen, train, sync, got 'trian'; did you mean"):
        SemiSupervisedOptions(batch_norm="trian")
    with pytest.raises(UserError, match="learning_rates must be a list"):
        LinearOptions(learning_rates=[True])


def test_a_missing_recipe_names_those_there_are():
    with pytest.raises(UserError, match="coco_1x, small, voc0712; did you mean coco_1x"):
        read_recipe("detection", "coco")
    with pytest.raises(UserError, match=r"there is no recipe x: give a YAML file$"):
        read_recipe("knn", "x")


def test_every_packaged_recipe_fits_its_task():
    read = {task: packaged_recipes(RECIPE_FOLDER / task) for task in TASK_OPTIONS}
    assert read["detection"] == ["coco_1x", "small", "voc0712"]
    for task, names in read.items():
        for name in names:
            settings = read_recipe(task, name)
            assert settings
            assert dataclasses.asdict(TASK_OPTIONS[task](**settings)).items() >= settings.items()


def test_checked_options_stay_as_they_are():
    options = KnnOptions(k=7, image_size=32)
    assert read_options(KnnOptions, dataclasses.asdict(options)) == options


@pytest.mark.parametrize("fraction", [0.001, 0.0, 1.1])
def test_a_crop_that_would_need_gigabytes_is_refused(fraction) -> None:
    """Of 0.001, an image would be enlarged to a thousand times the network's side before its centre is cut out."""
    for options in (KnnOptions, lambda **fields: EmbedOptions(model="m", dataset="d", output="o.npy", **fields)):
        with pytest.raises(UserError, match=r"crop_fraction must be at least 0\.1 and at most 1, got"):
            options(crop_fraction=fraction)
        assert options(crop_fraction=0.1).crop_fraction == 0.1
