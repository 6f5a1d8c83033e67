"""The table of commands: every row leads somewhere, and one row is all that a command needs."""

import dataclasses
import inspect
import typing

import pytest

from ladder_training.cli import publish
from ladder_training.cli.commands import COMMANDS, Command
from ladder_training.cli.entry import main, run_command
from ladder_training.config.fields import needed, option
from ladder_training.errors import UserError


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_row_names_a_function_that_takes_its_options(command: Command) -> None:
    (parameter,) = inspect.signature(command.function()).parameters
    assert typing.get_type_hints(command.function())[parameter] is command.options
    helped = {item.name for item in dataclasses.fields(command.options) if "help" in item.metadata}
    assert helped >= {*command.positionals, *([command.leading] if command.leading else [])}
    takes_more = command.recipe_fields or command.tasks is not None
    assert takes_more == ("fields" in {item.name for item in dataclasses.fields(command.options)})


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS.values():
        assert f"\n  {command.name} {command.arguments}" in text
        assert f" {command.summary}\n" in text


@dataclasses.dataclass(kw_only=True)
class Options:
    where: str = needed("Where.", metavar="DIR")
    rate: float = option(0.5, "How fast.", choices=(0.5, 1.0))


@dataclasses.dataclass(kw_only=True)
class Settings:
    """Settings of a task."""

    depth: int = option(3, "How deep.")


@dataclasses.dataclass(kw_only=True)
class TaskOptions:
    task: str
    name: str = option("x", "A name.")
    fields: dict[str, list[str]] = dataclasses.field(default_factory=dict)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the function of a row was called with."""
    calls: list = []
    monkeypatch.setattr(publish, "card_command", lambda options: calls.append(options))
    return calls


def row(options: type, **more: object) -> Command:
    common = {
        "name": "dig",
        "arguments": "DIR",
        "summary": "dig",
        "description": "Digs.",
        "run": "cli.publish:card_command",
    }
    return Command(options=options, **{**common, **more})


def test_one_row_is_a_command(ran: list, capsys: pytest.CaptureFixture) -> None:
    command = row(Options, positionals=("where",))
    assert run_command(command, ["here", "--rate", "1"]) == 0
    assert ran == [Options(where="here", rate=1.0)]
    assert run_command(command, ["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ladder dig DIR\n\nDigs.\n")
    assert "DIR" in text and "--rate NUMBER" in text and "How fast. (default: 0.5)" in text
    for words, message in (
        ([], "DIR \\(see `ladder dig --help`\\)"),
        (["here", "--rat", "1"], "did you mean --rate"),
        (["here", "--rate", "2"], "rate must be one of 0.5, 1.0, got 2.0"),
    ):
        with pytest.raises(UserError, match=message):
            run_command(command, words)
    assert len(ran) == 1


def test_a_leading_option_needs_no_name(ran: list) -> None:
    command = row(Options, leading="where")
    assert run_command(command, ["here"]) == run_command(command, ["--where", "here"]) == 0
    assert ran == [Options(where="here")] * 2


def test_a_command_of_tasks_takes_the_settings_of_the_task(ran: list, capsys: pytest.CaptureFixture) -> None:
    command = row(TaskOptions, usage="TASK [--name N]", tasks={"down_deep": Settings, "up": Options})
    assert run_command(command, ["down-deep", "--name", "n", "--depth", "4"]) == 0
    assert ran == [TaskOptions(task="down_deep", name="n", fields={"depth": ["4"]})]
    assert run_command(command, ["--help"]) == 0
    assert capsys.readouterr().out == "usage: ladder dig down_deep|up [--name N]\n\nDigs.\n"
    assert run_command(command, ["down_deep", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ladder dig down_deep [--name N]\n\nSettings of a task.\n")
    assert "--depth N" in text and "--task" not in text
    for words, message in (([], "dig needs a task: one of down_deep, up"), (["upp"], "did you mean up?")):
        with pytest.raises(UserError, match=message.replace("?", "\\?")):
            run_command(command, words)
