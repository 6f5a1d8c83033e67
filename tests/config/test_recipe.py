"""Recipes: YAML as people write it, checked names and types, and the command line's changes on top."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder_training.cli.help_text import COMMON_INHERITED
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.config.recipe import (
    OWN_GROUPS,
    all_fields,
    own_fields,
    packaged_recipes,
    read_recipe,
    resolve,
)
from ladder_training.config.values import coerce, from_text, load_yaml
from ladder_training.errors import UserError


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1.5e-6", 1.5e-6),
        ("1E3", 1000.0),
        ("-2e-1", -0.2),
        ("+1e2", 100.0),
        (".5", 0.5),
        ("3", 3),
        ("no", "no"),
        ("off", "off"),
        ("true", True),
        ("null", None),
        ("1e", "1e"),
        ("e6", "e6"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = load_yaml(f"field: {text}", "test")["field"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_python_prints_is_read_back(number: float) -> None:
    assert load_yaml(f"field: {number!r}", "test")["field"] == number


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        load_yaml(text, "test")
    except UserError as error:
        assert str(error).startswith("test")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, float, 3.0),
        (1e4, int, 10000),
        ("1e-6", float, 1e-6),
        ("no", bool, False),
        ("no", str, "no"),
        (7, str, "7"),
        ("global", list[str] | None, ["global"]),
        ([1, 0.5], list[float | int], [1, 0.5]),
        (None, int | None, None),
        ({"a": 1}, dict[str, object] | None, {"a": 1}),
    ],
)
def test_values_take_their_declared_type(value: object, annotation: object, expected: object) -> None:
    found = coerce(value, annotation, "field")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int),
        (1.5, int),
        ("x", float),
        ([1], int),
        ("a", dict),
        (None, int),
        ("maybe", bool),
        ([1, "x"], list[int]),
    ],
)
def test_values_of_another_type_are_refused(value: object, annotation: object) -> None:
    with pytest.raises(UserError, match="field must be"):
        coerce(value, annotation, "field")


def test_words_of_the_command_line() -> None:
    assert from_text(["007"], str | None, "run_name") == "007"
    assert from_text(["1e-6"], float, "weight_decay") == 1e-6
    assert from_text(["0.25", "1"], list[float | int] | None, "level_weights") == [0.25, 1]
    assert from_text(["{model_type: resnet, depths: [1, 2]}"], dict[str, object] | None, "backbone_config") == {
        "model_type": "resnet",
        "depths": [1, 2],
    }
    assert from_text(["null"], int | None, "monitor_steps") is None


def test_a_recipe_with_changes_of_the_command_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "dataset: digits\nweight_decay: 1e-6\nlearning_rate: 1e-3\nlevel_weights: [0.25, 1]\noutput_dir: here\n",
    )
    resolved = resolve(read_recipe(path), {"max_steps": ["40"], "weight_decay": ["1.5e-6"], "dataset": ["a", "b"]})
    assert resolved.data.dataset == ["a", "b"]
    assert resolved.model.level_weights == [0.25, 1]
    assert resolved.run.output == "here"
    assert resolved.arguments == {"weight_decay": 1.5e-6, "learning_rate": 1e-3, "max_steps": 40}
    assert resolved.values["max_steps"] == 40


def test_short_names_in_a_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, "data: digits\nlr: 1e-3\nepochs: 2\nbatch-size: 32\nworkers: 1\n")
    assert resolve(read_recipe(path)).values == {
        "dataset": "digits",
        "learning_rate": 1e-3,
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 32,
        "dataloader_num_workers": 1,
    }
    with pytest.raises(UserError, match="'learning_rate' is given twice"):
        resolve(read_recipe(write(tmp_path, "lr: 1e-3\nlearning_rate: 1e-2\n")))


def test_an_unknown_field_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown field 'levl_weights'; did you mean level_weights\?$"):
        resolve(read_recipe(write(tmp_path, "levl_weights: [1]\n")))
    with pytest.raises(UserError, match=r"did you mean max_steps\?$"):
        resolve(read_recipe(write(tmp_path, "max_step: 3\n")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: many\n", "max_steps must be a whole number, got 'many'"),
        ("a: [1\n", "line"),
        ("- a\n- b\n", "field: value"),
        ("max_steps: 1\nmax_steps: 2\n", "line 2: 'max_steps' is given twice"),
        ("output: a\noutput_dir: b\n", "given twice"),
        ("method: byl\n", "did you mean byol"),
        ("!!python/object/apply:os.system [true]\n", "line 1"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(read_recipe(write(tmp_path, text)))
    assert message in str(caught.value)


def test_a_missing_recipe_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no recipe digit: .*did you mean digits\?$"):
        read_recipe("digit")
    with pytest.raises(UserError, match="is a folder"):
        read_recipe(tmp_path)


def test_baselines_have_one_level_whatever_the_recipe_gives_to_the_ladder(tmp_path: Path) -> None:
    path = write(tmp_path, "method: ladder\nlevel_names: [stage1, stage4]\nlevel_weights: [1, 1]\n")
    byol = resolve(read_recipe(path), {"method": ["byol"]})
    assert byol.model.level_names is None
    assert "level_weights" not in byol.values
    assert resolve(read_recipe(path)).model.level_names == ["stage1", "stage4"]


def test_own_fields_are_the_trainers_fields_and_every_field_has_a_help_text() -> None:
    own = own_fields()
    assert all(item.metadata["help"] for _, item in own.values())
    names = [item.name for group in OWN_GROUPS.values() for item in dataclasses.fields(group)]
    assert len(names) == len(set(names))
    everything = all_fields()
    assert {item.name for item in dataclasses.fields(LadderTrainingArguments) if item.init} <= set(everything)
    assert set(COMMON_INHERITED) <= set(everything) - set(own)


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_are_read_and_make_arguments_and_a_network(name: str, tmp_path: Path) -> None:
    import torch

    from ladder_training.pretraining.build import build_model, training_arguments

    # Mixed precision is a matter of the machine, which here may have none, and so is the Hub.
    recipe = resolve(read_recipe(name), {"bf16": ["false"], "from_model": ["null"]})
    arguments = training_arguments(recipe, tmp_path)
    assert arguments.peak_learning_rate > 0
    assert arguments.max_grad_norm == 0
    with torch.device("meta"):
        model = build_model(recipe)
    assert len(model.config.stages) == 4
    assert (arguments.max_steps > 0) != (recipe.arguments.get("num_train_epochs") is not None)
