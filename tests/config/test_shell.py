"""Commands that are printed for a shell are read as they were meant."""

import shlex

from ladder_training.cli.options import InspectOptions
from ladder_training.cli.parser import OptionParser
from ladder_training.config.fields import fields_of
from ladder_training.config.shell import ladder_command, typed


def test_a_shell_and_the_parser_read_what_was_written() -> None:
    names = ["it's $HOME", "b c"]
    given = {"dataset": names, "image_range": [0.0, 4095.5], "trust_paths": True, "revision": None, "streaming": False}
    line = ladder_command("inspect", **given)
    words = shlex.split(line)
    assert words[:2] == ["ladder", "inspect"] and "revision" not in line and "streaming" not in line
    parser = OptionParser("ladder inspect", "")
    parser.add_fields("options", fields_of(InspectOptions))
    _, options = parser.parse(words[2:])
    assert options == {"dataset": names, "image_range": ["0", "4095.5"], "trust_paths": ["true"]}


def test_positional_arguments_and_tasks_come_first() -> None:
    assert ladder_command("push", "a b", "USER/NAME", dry_run=True) == "ladder push 'a b' USER/NAME --dry_run"
    assert ladder_command("evaluate knn", model="m", label_column=None, split=()) == "ladder evaluate knn --model m"


def test_only_what_was_typed_is_kept() -> None:
    assert typed({"split": ["val"], "k": ["3"]}, "split", "label_column") == {"split": ["val"]}
