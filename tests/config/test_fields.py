"""Fields of options dataclasses: what somebody wrote becomes the declared names and types, or one clear line."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ladder_training.config.fields import build, check_values, fields_of, needed, option, read_words
from ladder_training.config.values import load_yaml, read_mapping
from ladder_training.errors import UserError


@dataclass(kw_only=True)
class Options:
    rate: float = option(0.1, "A number.")
    masks: str = option("auto", "One of three.", choices=("auto", "yes", "no"))
    augment: bool = option(False, "A switch.")
    sides: tuple[int, ...] = option((1, 2), "Several.")
    folder: str = needed("Must be given.")
    backend: str | None = option(None, "One of two, or nothing.", choices=("a", "b"))


def test_what_is_written_takes_its_declared_type() -> None:
    written = load_yaml("rate: 1e-2\nmasks: yes\naugment: yes\nsides: [3, 4]\nout: here\n", "test")
    values = check_values(written, fields_of(Options), "test: ", aliases={"out": "folder"})
    assert values == {"rate": 0.01, "masks": "yes", "augment": True, "sides": [3, 4], "folder": "here"}
    assert Options(**values).sides == [3, 4]
    assert check_values({"sides": 5, "rate": None}, fields_of(Options), "test") == {"sides": [5], "rate": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratee: 1", "recipe x: unknown field 'ratee'; did you mean rate?"),
        ("zzz: 1", "recipe x: unknown field 'zzz'"),
        ("rate: fast", "recipe x: rate must be a number, got 'fast'"),
        ("masks: yess", "recipe x: masks must be one of auto, yes, no, got 'yess'; did you mean yes?"),
        ("augment: maybe", "recipe x: augment must be true or false, got 'maybe'"),
        ("folder: a\nout: b", "recipe x: 'out' is given twice"),
    ],
)
def test_a_mistake_says_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_values(load_yaml(text, "x"), fields_of(Options), "recipe x: ", aliases={"out": "folder"})
    assert str(caught.value) == message


def test_words_of_the_command_line_are_checked_alike() -> None:
    assert read_words(["3", "4"], fields_of(Options)["sides"], "sides") == [3, 4]
    with pytest.raises(UserError, match=r"masks must be one of auto, yes, no, got 'no_'; did you mean no\?"):
        build(Options, {"masks": ["no_"], "folder": ["x"]})
    assert build(Options, {"backend": ["null"], "folder": ["x"]}).backend is None
    with pytest.raises(UserError, match="option --folder is needed"):
        build(Options, {"rate": ["1"]})


def test_a_file_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "fields.yaml"
    path.write_text("rate: 1e-2 # slow\n", encoding="utf-8")
    assert read_mapping(path, "recipe") == ({"rate": 0.01}, "rate: 1e-2 # slow\n")
    path.write_text("", encoding="utf-8")
    assert read_mapping(path, "recipe") == ({}, "")
    for text, message in (
        ("- a\n", "must hold `field: value` lines"),
        ("1: 2\n", "must hold `field: value` lines"),
        ("a: 1\na: 2\n", "line 2: 'a' is given twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_mapping(path, "recipe")
    with pytest.raises(UserError, match="cannot be read"):
        read_mapping(tmp_path / "none.yaml", "recipe")
