"""Fields of options dataclasses: declared, listed, built from words; and the nearest name that exists."""

import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any

from ..errors import UserError, did_you_mean, near_names
from .values import from_text


def unknown_name(name: str, known: Iterable[str], what: str, dashes: bool = False) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    near = near_names(name.replace("-", "_"), known)
    return UserError(what + did_you_mean([f"--{found}" for found in near] if dashes else near))


def option(default: Any, help_text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with a help text.

    Args:
        default: Its value where none is given; of a list or a dict each instance gets a copy.
        help_text: Shown by `--help`.
        choices: The only values that make sense; None for any of its type.
    """
    metadata = {"help": help_text, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def needed(help_text: str) -> Any:
    """A dataclass field that must be given."""
    return field(metadata={"help": help_text})


def default_of(item: Field) -> Any:
    """A dataclass field's default value, or None where it has none."""
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else None


def fields_of(options_class: type) -> dict[str, tuple[Any, Field]]:
    """A dataclass's fields: name -> (type, field)."""
    hints = typing.get_type_hints(options_class)
    return {item.name: (hints[item.name], item) for item in fields(options_class)}


def build(options_class: type, words: Mapping[str, list[str]], positionals: Mapping[str, str] | None = None) -> Any:
    """An instance of an options dataclass from parsed words.

    Raises:
        UserError: a value does not fit its type, or one that has no default is missing.
    """
    declared = fields_of(options_class)
    values = {name: from_text(word, declared[name][0], name) for name, word in words.items() if name in declared}
    values |= {name: value for name, value in (positionals or {}).items() if name in declared}
    for name, (_, item) in declared.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise UserError(f"option --{name} is needed")
    return options_class(**values)
