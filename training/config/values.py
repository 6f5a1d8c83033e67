"""Values that people write, in YAML or on the command line, as the types that the options declare."""

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
    """Safe YAML with the plain scalars of YAML 1.2: 1e-6 is a number, and `no` or `off` are words."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the attribute is PyYAML's)
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping in which no key is written twice (YAML lets the last one win without a word)."""
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
        where: What the message of an error calls it, e.g. the file's name.

    Raises:
        UserError: the text is no YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}: {error.problem or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {error}") from error


def from_text(texts: list[str], annotation: Any, name: str) -> Any:
    """What the words after an option of the command line mean.

    Args:
        texts: The words, at least one; several make a list.
        annotation: The option's type.
        name: The option, for messages.

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
    """`value` as one of the types that `annotation` allows.

    A whole number fits where a number is wanted, `1e4` where a whole number is, one entry where a list is, and a
    quoted number where a number is; true and false never count as numbers.

    Args:
        value: As read from YAML.
        annotation: A type, a union of types, or a parametrised list or dict; a type not known here accepts anything.
        name: The field, for messages.

    Raises:
        UserError: no type of the annotation fits; names the field and what is expected.
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
    """Whether an option of this type may be given without a value."""
    return set(_choices(annotation)) <= {bool, type(None)}


def is_list(annotation: Any) -> bool:
    """Whether an option of this type takes several values."""
    return any(_is_sequence(choice) for choice in _choices(annotation))


def _parsed(text: str, annotation: Any, name: str) -> Any:
    """One word of the command line as YAML; text that is meant as text stays text."""
    members = [member for choice in _choices(annotation) for member in _choices((get_args(choice) or (choice,))[0])]
    flow = text[:1] in "[{"
    if str in members and not flow and not {int, float} & set(members):
        return text
    return load_yaml(text, f"--{name}")


def _is_sequence(choice: Any) -> bool:
    """Whether a type is a list, or a tuple of any length."""
    return choice in (list, tuple) or get_origin(choice) in (list, tuple)


def _is_mapping(choice: Any) -> bool:
    """Whether a type is a dictionary."""
    return choice is dict or get_origin(choice) is dict


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _fit(value: Any, choice: Any, exact: bool) -> tuple[bool, Any]:
    """Whether the value is (exact) or can be read as (not exact) one type, and what it is then."""
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
        plain = isinstance(value, (int, float)) and not isinstance(value, bool) and not exact
        return isinstance(value, str) or plain, str(value)
    return isinstance(value, choice) if exact and isinstance(choice, type) else not exact, value


def _fit_list(value: Any, member: Any, exact: bool) -> tuple[bool, Any]:
    """A list whose entries all fit, or (not exact) one entry as a list."""
    if not isinstance(value, (list, tuple)):
        if exact or value is None or isinstance(value, dict):
            return False, value
        value = [value]
    try:
        return True, [coerce(entry, member, "entry") for entry in value]
    except UserError:
        return False, value


def _fit_number(value: Any, choice: type, exact: bool) -> tuple[bool, Any]:
    """A number of the wanted kind; never a truth value."""
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
    """What a person calls a type."""
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
