"""Fields of options dataclasses: how they are declared and listed, and how written values are checked against them."""

import copy
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from types import MappingProxyType
from typing import Any

from ..errors import UserError, did_you_mean, near_names
from .ranges import ANY, Range
from .synonyms import called_here
from .values import coerce, from_text

Fields = Mapping[str, tuple[Any, Field[Any]]]
"""Declared fields: name -> (type, dataclass field)."""


def unknown_name(
    name: str, known: Iterable[str], what: str, dashes: bool = False, list_known: bool = False
) -> UserError:
    """Make the error for a name that does not exist. It suggests the nearest name that does.

    Args:
        name: What the user wrote.
        known: Every name that exists.
        what: The message before the suggestion.
        dashes: Show the suggestion as a command-line option, `--name`.
        list_known: List all known names if none is near.
    """
    known = [*known]
    near = near_names(name.replace("-", "_"), known)
    hint = did_you_mean([f"--{found}" for found in near] if dashes else near)
    return UserError(what + (f"; there are {', '.join(known)}" if list_known and not near else hint))


def unknown_option(
    name: str,
    known: Iterable[str],
    what: str,
    *,
    dashes: bool = False,
    list_known: bool = False,
    near: bool = True,
) -> UserError:
    """Make the error for an option that does not exist. It names those that say the same, else the nearest one.

    Args:
        name: What the user wrote.
        known: Every option that exists.
        what: The message before the suggestion.
        dashes: Show suggestions as command-line options, `--name`.
        list_known: List all options if there is nothing to suggest.
        near: Whether an option with a similar name may be meant.
    """
    known = [*known]
    same = called_here(name.replace("-", "_"), known)
    if same:
        return UserError(f"{what}; here use {listed([f'--{one}' for one in same] if dashes else same, 'or')}")
    return unknown_name(name, known, what, dashes, list_known) if near else UserError(what)


def listed(words: Sequence[str], last: str) -> str:
    """Join words as a sentence does: "a, b or c".

    Args:
        words: At least one.
        last: What stands before the last word, "and" or "or".
    """
    return f" {last} ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), words[-1]])


def option(
    default: Any,
    help_text: str,
    choices: tuple[Any, ...] | None = None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    length: int | None = None,
) -> Any:
    """Declare a dataclass field with a help text.

    Args:
        default: The value if none is given. Each instance gets its own copy of a list or a dict.
        help_text: Shown by `--help`.
        choices: The values that are allowed; None allows every value of the field's type.
        minimum: Smallest number allowed. For a list, this and the following hold for every number in it.
        maximum: Largest number allowed.
        above: The number must be greater.
        below: The number must be smaller.
        length: Numbers in a list.
    """
    allowed = Range(minimum=minimum, maximum=maximum, above=above, below=below, length=length)
    metadata = {"help": help_text, "choices": choices, "range": allowed}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def image_range_option() -> Any:
    """Declare the range of values in images of more than 8 bits."""
    return option(
        None,
        "Values that are black and white in images of more than 8 bits, e.g. 0 4095; default: their type's.",
        length=2,
    )


def trust_paths_option() -> Any:
    """Declare whether the paths in a data set's rows are followed wherever they lead."""
    return option(
        False, "Follow paths and URLs in a data set's rows wherever they lead; default: only below its own folder."
    )


def needed(help_text: str, metavar: str | None = None) -> Any:
    """Declare a dataclass field without a default: it must be given.

    Args:
        help_text: Shown by `--help`.
        metavar: What stands for the value in the help of a positional argument; default: the name in capitals.
    """
    return field(metadata={"help": help_text, "metavar": metavar})


def default_of(item: Field[Any]) -> Any:
    """Return the default value of a dataclass field, or None if it has none."""
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else None


def fields_of(options_class: type) -> dict[str, tuple[Any, Field[Any]]]:
    """List the fields of a dataclass: name -> (type, field)."""
    hints = typing.get_type_hints(options_class)
    return {item.name: (hints[item.name], item) for item in fields(options_class)}


def in_range(item: Field[Any], allowed: Range) -> Field[Any]:
    """Return a copy of a dataclass field that another library declared, with a range for its numbers."""
    ranged = copy.copy(item)
    ranged.metadata = MappingProxyType({**item.metadata, "range": allowed})
    return ranged


def check_value(value: Any, declared: tuple[Any, Field[Any]], name: str) -> Any:
    """Convert a value to a field's type and check it against the field's choices and range.

    Args:
        value: From YAML, or a Python keyword.
        declared: (type, field), as `fields_of` gives them.
        name: The field's name, for messages.

    Raises:
        UserError: the value does not fit the type (see `values.coerce`), is not among the choices, or is out of range.
    """
    annotation, item = declared
    return _allowed(coerce(value, annotation, name), item, name)


def read_words(words: list[str], declared: tuple[Any, Field[Any]], name: str) -> Any:
    """Convert the words typed after an option of the command line, and check them against its choices and range.

    Args:
        words: At least one; several make a list.
        declared: (type, field), as `fields_of` gives them.
        name: The option's name, for messages.

    Raises:
        UserError: the words do not fit the type (see `values.from_text`), or the value is not among the choices or out
            of range.
    """
    annotation, item = declared
    return _allowed(from_text(words, annotation, name), item, name)


def check_fields(options: Any, names: Iterable[str] | None = None) -> None:
    """Convert and check the values of an instance of an options dataclass in place; lists become tuples.

    Args:
        options: The instance.
        names: Fields to check; default: all.

    Raises:
        UserError: a value does not fit its type, its choices or its range.
    """
    for name, declared in fields_of(type(options)).items():
        if names is None or name in names:
            value = check_value(getattr(options, name), declared, name)
            # As a tuple, options stay as they are once checked, and compare equal whatever the user wrote.
            setattr(options, name, tuple(value) if isinstance(value, list) else value)


def _allowed(value: Any, item: Field[Any], name: str) -> Any:
    """Return the value if it is None, or among the field's choices and in its range where there are such."""
    choices = item.metadata.get("choices")
    if choices and value is not None and value not in choices:
        names = [str(choice) for choice in choices]
        raise unknown_name(str(value), names, f"{name} must be one of {', '.join(names)}, got {value!r}")
    item.metadata.get("range", ANY).check(value, name)
    return value


def check_values(
    values: Mapping[Any, Any],
    known: Fields,
    where: str = "",
    *,
    what: str = "field",
    aliases: Mapping[str, str] | None = None,
    list_known: bool = False,
) -> dict[str, Any]:
    """Check the names and convert the values of a YAML mapping. None stands for "not given" and stays None.

    Args:
        values: Name as written (`batch-size` means `batch_size`) to value.
        known: Name to (type, field), as `fields_of` gives them.
        where: Start of every message, e.g. "recipe x.yaml: ".
        what: What messages call a field.
        aliases: Other names for fields.
        list_known: List all known names if none is near a wrong one.

    Returns:
        Field name to converted value.

    Raises:
        UserError: a name does not exist (the nearest one is suggested) or is given twice, or a value does not fit.
    """
    aliases = aliases or {}
    checked: dict[str, Any] = {}
    for written, value in values.items():
        name = str(written).replace("-", "_")
        name = aliases.get(name, name)
        if name not in known:
            message = f"{where}unknown {what} {written!r}"
            raise unknown_option(name, [*known, *aliases], message, list_known=list_known)
        if name in checked:
            raise UserError(f"{where}{written!r} is given twice")
        checked[name] = None if value is None else check_value(value, known[name], f"{where}{name}")
    return checked


def build(options_class: type, words: Mapping[str, list[str]], positionals: Mapping[str, str] | None = None) -> Any:
    """Make an instance of an options dataclass from the words of the command line.

    Args:
        options_class: The dataclass.
        words: Option -> the words after it. Options that the dataclass does not have are skipped.
        positionals: Positional argument -> its word.

    Raises:
        UserError: a value does not fit its type, or an option without a default is missing.
    """
    declared = fields_of(options_class)
    values = {name: read_words(word, declared[name], name) for name, word in words.items() if name in declared}
    values |= {name: value for name, value in (positionals or {}).items() if name in declared}
    for name, (_, item) in declared.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise UserError(f"option --{name} is needed")
    return options_class(**values)
