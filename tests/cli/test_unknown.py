"""An unknown option that another task or command has, or that other tools have, is told apart from a misspelt one."""

import pytest

from ladder_training.cli.commands import COMMANDS
from ladder_training.cli.entry import main
from ladder_training.config.fields import fields_of
from ladder_training.config.recipe import ALIASES, Recipe, resolve
from ladder_training.errors import UserError
from ladder_training.evaluation.options import TASK_OPTIONS, read_options

SIZES = ("size", "img_size", "imgsz", "input_size", "resolution")


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1
    return lines[0].removeprefix("ladder: error: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "evaluate detection --image_size 96",
            "unknown option --image_size: it belongs to evaluate knn, evaluate linear and evaluate semi_supervised; "
            "here use --short_sides, --test_short_side or --long_side",
        ),
        (
            "evaluate detection --image-sise 96",
            "unknown option --image_sise: --image_size belongs to evaluate knn, evaluate linear and evaluate "
            "semi_supervised; here use --short_sides, --test_short_side or --long_side",
        ),
        ("evaluate segmentation --size 96", "unknown option --size; here use --crop_size or --resize_side"),
        ("evaluate knn --stages stage4", "it belongs to evaluate detection and evaluate segmentation"),
        ("evaluate detection --epochs 3", "evaluate linear and evaluate semi_supervised; here use --steps"),
        ("finetune classification --lr 1e-3", "it belongs to pretrain and compare; here use --learning_rates"),
        ("finetune segmentation --batch-sise 2", "unknown option --batch_sise; did you mean --batch_size?"),
        ("embed --k 3", "unknown option --k: it belongs to evaluate knn"),
        ("embed --short_side 96", "unknown option --short_side: it belongs to prepare; here use --image_size"),
        ("prepare --image_size 96", "here use --short_side"),
        (
            "export --model runs/x",
            "unknown option --model: here CHECKPOINT is given without a name (usage: ladder export",
        ),
        ("card --model runs/x", "unknown option --model: here DIRECTORY is given without a name (usage: ladder card"),
        ("report --zzz", "unknown option --zzz"),
    ],
)
def test_where_it_belongs_and_what_there_is_here(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(words.split(), capsys)
    assert said in error and (error == said or len(said) < len(error))
    assert "image_range" not in error


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if row.tasks])
def test_every_option_of_another_task_is_told_where_it_belongs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = COMMANDS[name].tasks or {}
    tried = 0
    for task, own in tasks.items():
        here = {*fields_of(own), *fields_of(COMMANDS[name].options)}
        for other, settings in tasks.items():
            for option in fields_of(settings):
                if option not in here and ALIASES.get(option) not in here:
                    error = error_of([name, task, f"--{option}", "1"], capsys)
                    assert f"unknown option --{option}: it belongs to " in error and f"{name} {other}" in error
                    tried += 1
    assert tried > 30


@pytest.mark.parametrize("size", SIZES)
def test_every_command_knows_the_words_for_the_size_of_images(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [[name, task] for name, row in COMMANDS.items() for task in row.tasks or {}]
    for words in [
        *calls,
        ["pretrain", "digits"],
        ["compare", "digits"],
        ["embed"],
        ["export"],
        ["inspect"],
        ["prepare"],
    ]:
        assert f"unknown option --{size}; here use --" in error_of([*words, f"--{size}", "64"], capsys)


def test_python_and_recipes_say_the_same() -> None:
    with pytest.raises(
        UserError, match=r"unknown setting 'image_size'; here use short_sides, test_short_side or long_s"
    ):
        read_options(TASK_OPTIONS["detection"], {"image_size": 96})
    with pytest.raises(UserError, match=r"recipe x: unknown field 'resolution'; here use image_size$"):
        resolve(Recipe("x", "", {"resolution": 96}, "recipe x"))
