"""Whatever is typed: an exit code that means something, and one line instead of a traceback."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder_training.cli import commands
from ladder_training.cli.commands import COMMANDS, Command
from ladder_training.cli.entry import main
from ladder_training.config.fields import fields_of
from ladder_training.config.recipe import ResolvedRecipe, all_fields
from ladder_training.pretraining import run as pretraining
from ladder_training.pretraining.build import build_views, network_config, training_arguments

CODES = {0, 2, 3, 130, 143}
ODD = [
    *("", " ", "0", "-1", "1", "1.5", "nan", "-inf", "1e400", "99999999999999999999", "null", "true", "no", "[]", "{}"),
    *("[1, 2]", "[nan]", "{a: 1}", "{model_type: x}", "[[1], {b: c}]", "x", "x" * 300, "x/" * 3000),
    *("/proc", "/dev/full", "/dev/null", "~nobody-at-all", "a\x00b", "\udcff", "é", "*", "%s", "{0}", "digits"),
    *("https://me:secret@host/x", "user/name@main", "ladder", "steps", "cosine", "--", "-", "=", "&x *x", "!!python/x"),
]
VALUES = st.one_of(st.sampled_from(ODD), st.text(max_size=20), st.integers().map(str), st.floats().map(str))


def names_of(command: Command, task: str | None) -> list[str]:
    """Every option that the parser of a command knows."""
    names = [name for name, (_, item) in fields_of(command.options).items() if "help" in item.metadata]
    names += [*all_fields()] if command.recipe_fields else []
    if command.tasks is not None and task is not None:
        names += [*fields_of(command.tasks[task])]
    return names


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command line: a command of the table, its positional words, and a few of its options with values."""
    command = COMMANDS[draw(st.sampled_from(sorted(COMMANDS)))]
    task = draw(st.sampled_from(sorted(command.tasks))) if command.tasks is not None else None
    words = [command.name, *([task] if task else [])]
    for name in command.positionals:
        words.append("digits" if name == "recipe" and draw(st.booleans()) else draw(VALUES))
    for name in draw(st.lists(st.sampled_from(names_of(command, task)), max_size=3)):
        spelt = name.replace("_", "-") if draw(st.booleans()) else name
        values = draw(st.lists(VALUES, max_size=2))
        words += [f"--{spelt}={values[0]}"] if values and draw(st.booleans()) else [f"--{spelt}", *values]
    return words


def checked(recipe: ResolvedRecipe) -> int:
    """In place of a pretraining: what is checked before the data are opened."""
    training_arguments(recipe, Path("run"))
    if recipe.model.from_model is None and (recipe.model.projection_hidden_size or 0) < 10_000:
        network_config(recipe)
    build_views(recipe)
    return 0


def run_checks_only(words: list[str]) -> int:
    """Run a command that stops where its work would begin."""
    function = commands.Command.function

    def harmless(self: Command) -> object:
        return function(self) if self.name == "pretrain" else lambda options: 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "pretrain", checked)
        patch.setattr(commands.Command, "function", harmless)
        return main(words)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(words=lines())
def test_any_line_ends_with_a_code_and_at_most_one_line_of_error(words: list[str]) -> None:
    assert run_checks_only(words) in CODES


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "-1"],
        ["--seed", "99999999999999999999"],
        ["--num_train_epochs", "nan", "--max_steps", "-1"],
        ["--num_train_epochs", "0", "--max_steps", "-1"],
        ["--report_to", "nothere"],
        ["--report_to", "wandb"],
        ["--dataloader_num_workers", "99999"],
        ["--output", "x" * 300],
        ["--output", "/proc/run"],
        ["--dataset", "/proc"],
        ["--dataset", "x/" * 3000],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_values_that_ended_with_a_traceback_are_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "digits", "--dataset", "digits", "--use_cpu", "--max_steps", "2", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ladder: error: ")
    assert words[0].lstrip("-").replace("dataset", "") in error or words[1] in error or "/proc/" in error
    assert list(tmp_path.iterdir()) == []
