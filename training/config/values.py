"""Reading values that people write, in YAML or on the command line, as the types that the options declare."""

import re
import types
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from ..errors import UserError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: 1e-6 is a number, and unquoted `no` or `off` are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the attribute is PyYAML's)
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping, and refuse a key that is given twice (YAML would silently use the last one)."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, Hashable) else str(key))
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML, safely.

    Args:
        text: The document.
        where: The start of error messages, e.g. the file's name.

    Raises:
        UserError: the text is not valid YAML; the message names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}: {error.problem or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {error}") from error


def from_text(texts: list[str], annotation: Any, name: str) -> Any:
    """Convert the words after an option of the command line to the option's type.

    Args:
        texts: The words, at least one; several make a list.
        annotation: The option's type.
        name: The option's name, for error messages.

    Raises:
        UserError: the words do not fit the type.
    """
    choices = _choices(annotation)
    if len(texts) > 1:
        return coerce([_parsed(text, annotation, name) for text in texts], annotation, name)
    text = texts[0]
    if type(None) in choices and text.lower() in ("null", "none"):
        return None
    if str in choices and not any(_is_sequence(choice) or _is_mapping(choice) for choice in choices):
        # Text stays as it was typed: 007 is no number when a name is wanted.
        return coerce(text, annotation, name)
    return coerce(_parsed(text, annotation, name), annotation, name)


def coerce(value: Any, annotation: Any, name: str) -> Any:
    """Convert a value to one of the types that an annotation allows.

    A type that fits exactly is preferred. Otherwise a whole number is accepted as a number, `1e4` as a whole number, a
    quoted number as a number, `yes`, `no`, `on` and `off` as true or false, and a single entry as a list. True and
    false are never accepted as numbers.

    Args:
        value: As read from YAML.
        annotation: A type, a union of types, or a parametrised list, tuple or dict. An unknown type accepts anything.
        name: The field's name, for error messages.

    Raises:
        UserError: no type of the annotation fits; the message names the field and what is expected.
    """
    choices = _choices(annotation)
    for exact in (True, False):
        for choice in choices:
            fits, result = _fit(value, choice, exact)
            if fits:
                return result
    expected = " or ".join(dict.fromkeys(_describe(choice) for choice in choices if choice is not type(None)))
    raise UserError(f"{name} must be {expected}, got {value!r}")


def is_switch(annotation: Any) -> bool:
    """Tell whether an option of this type may be given without a value."""
    return set(_choices(annotation)) <= {bool, type(None)}


def is_list(annotation: Any) -> bool:
    """Tell whether an option of this type takes several values."""
    return any(_is_sequence(choice) for choice in _choices(annotation))


def _parsed(text: str, annotation: Any, name: str) -> Any:
    """Parse one word of the command line as YAML, unless the type asks for text."""
    members = [member for choice in _choices(annotation) for member in _choices((get_args(choice) or (choice,))[0])]
    flow = text[:1] in "[{"
    if str in members and not flow and not {int, float} & set(members):
        return text
    return load_yaml(text, f"--{name}")


def _is_sequence(choice: Any) -> bool:
    """Tell whether a type is a list, or a tuple of any length."""
    return choice in (list, tuple) or get_origin(choice) in (list, tuple)


def _is_mapping(choice: Any) -> bool:
    """Tell whether a type is a dictionary."""
    return choice is dict or get_origin(choice) is dict


def _choices(annotation: Any) -> tuple[Any, ...]:
    """List the members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _fit(value: Any, choice: Any, exact: bool) -> tuple[bool, Any]:
    """Tell whether a value is of a type (exact) or can be converted to it (not exact), and return it converted."""
    origin = get_origin(choice)
    if choice is Any:
        return True, value
    if choice is type(None):
        return value is None, None
    if origin is Literal:
        return value in get_args(choice), value
    if _is_sequence(choice):
        return _fit_list(value, (get_args(choice) or (Any,))[0], exact)
    if _is_mapping(choice):
        return isinstance(value, dict), value
    if choice is bool:
        word = str(value).lower()
        if isinstance(value, bool) or exact or not isinstance(value, (str, int)) or word not in _TRUE + _FALSE:
            return isinstance(value, bool), value
        return True, word in _TRUE
    if choice in (int, float):
        return _fit_number(value, choice, exact)
    if choice is str:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return isinstance(value, str) or (is_number and not exact), str(value)
    return isinstance(value, choice) if exact and isinstance(choice, type) else not exact, value


def _fit_list(value: Any, member: Any, exact: bool) -> tuple[bool, Any]:
    """Fit every entry of a list, or (not exact) take one entry as a list."""
    if not isinstance(value, (list, tuple)):
        if exact or value is None or isinstance(value, dict):
            return False, value
        value = [value]
    try:
        return True, [coerce(entry, member, "entry") for entry in value]
    except UserError:
        return False, value


def _fit_number(value: Any, choice: type, exact: bool) -> tuple[bool, Any]:
    """Fit a number of the wanted kind. True and false are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False, value
    if exact:
        return type(value) is choice, value
    try:
        number = float(value)
    except ValueError:
        return False, value
    if choice is float:
        return True, number
    return number.is_integer(), int(number) if number.is_integer() else value


def _describe(choice: Any) -> str:
    """Name a type in the words of an error message."""
    if _is_sequence(choice):
        return "a list"
    if get_origin(choice) is Literal:
        return " or ".join(str(value) for value in get_args(choice))
    return _NAMES.get(get_origin(choice) or choice, "text")


def read_yaml(path: str | Path, what: str) -> tuple[Any, str]:
    """Read a YAML file.

    Args:
        path: Of the file.
        what: What error messages call it, e.g. "recipe".

    Returns:
        Its content, parsed, and its text.

    Raises:
        UserError: the file cannot be read, or holds no YAML.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from error
    return load_yaml(text, f"{what} {path}"), text


def read_mapping(path: str | Path, what: str) -> tuple[dict[str, Any], str]:
    """Read a YAML file that holds one mapping of fields; an empty file is an empty mapping.

    Args:
        path: Of the file.
        what: What error messages call it, e.g. "recipe".

    Returns:
        Field name -> value, as `fields.check_values` takes it, and the file's text.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    content, text = read_yaml(path, what)
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{what} {path} must hold `field: value` lines, one field each")
    return content, text
