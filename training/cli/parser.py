"""The parser of the command line, made from dataclasses that declare options. Nothing heavy is imported here."""

import argparse
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field
from typing import Any, NoReturn

from ..config.fields import Fields, default_of, unknown_option
from ..config.recipe import ALIASES
from ..config.synonyms import called_here
from ..config.values import is_list, is_switch
from ..data.left_out import is_first_process
from ..errors import UserError

# `ladder inspect` calls the workers of its measurement num_workers.
_ALIASES = (*ALIASES.items(), ("workers", "num_workers"))
_SWITCH_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0", "none", "null")


class OptionParser(argparse.ArgumentParser):
    """argparse with our spelling rules: `--max_steps` is `--max-steps`, and `--no-streaming` is `--streaming false`.

    An error is a `UserError` of one line. For an unknown option, it suggests the nearest one that exists.

    Args:
        usage: What the help shows after `usage:`.
        description: The first paragraph of the help.
        unknown: Makes the error for an option that is not among those declared.
    """

    def __init__(
        self, usage: str, description: str, unknown: Callable[[str, Sequence[str]], UserError] | None = None
    ) -> None:
        super().__init__(
            prog="ladder",
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self._declared: dict[str, tuple[Any, str]] = {}
        self._help_flags = {"help": "Show this text."}
        self._without_name: dict[str, str] = {}
        self._unknown = unknown

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`, where argparse would print the usage and exit."""
        command = " ".join(str(self.usage).split()[:2])
        raise UserError(f"{message} (see `{command} --help`)")

    def add_positional(self, name: str, shown: str, text: str, *, optional: bool) -> None:
        """Add an argument that is given without a name.

        Args:
            name: Where its word goes.
            shown: What stands for it in the help.
            text: Of the help.
            optional: Whether it may be left out.
        """
        self._without_name[name] = shown
        self.add_argument(name, metavar=shown, help=text, nargs="?" if optional else None)

    def add_fields(self, title: str, declared: Fields) -> None:
        """Add a group with one option per dataclass field.

        Args:
            title: Heading of the group in the help.
            declared: Name -> (type, dataclass field).
        """
        group = self.add_argument_group(title)
        for name, (annotation, item) in declared.items():
            several = is_list(annotation)
            settings: dict[str, Any] = {"dest": name, "action": "append", "metavar": _metavar(annotation)}
            settings["nargs"] = "+" if several and not _takes_one(annotation) else None
            aliases = [alias for alias in _aliases(name) if alias not in declared and alias not in self._declared]
            # `from` cannot be the name of a dataclass's field, so the field has another name, which nobody needs.
            shown, *hidden = [*aliases, name] if "from" in aliases else [name, *aliases]
            also = "" if "from" in aliases else "".join(f" Also --{alias}." for alias in aliases)
            group.add_argument(f"--{shown}", help=_help(item) + also, **settings)
            for spelling in hidden:
                group.add_argument(f"--{spelling}", help=argparse.SUPPRESS, **settings)
            for spelling in (shown, *hidden):
                self._declared[spelling] = (annotation, name)

    def add_flag(self, name: str, text: str) -> None:
        """Add a flag that shows help."""
        self._help_flags[name] = text

    def parse(self, words: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Read the words of a command.

        Args:
            words: What was typed after the command's name.

        Returns:
            Positional argument -> its word, and option -> the words after it, for those that were given.

        Raises:
            UserError: an option does not exist or has no value, or there are too few or too many positional arguments.
        """
        parsed = vars(self.parse_args(self._normalised(words)))
        names = {name for _, name in self._declared.values()}
        options = {name: _flat(value, self._annotation(name)) for name, value in parsed.items() if name in names}
        return {name: value for name, value in parsed.items() if name not in names}, options

    def full_help(self) -> str:
        """Format the help text, with the flags that show help at its end."""
        group = self.add_argument_group("help")
        for name, text in self._help_flags.items():
            group.add_argument(f"--{name}", action="store_true", help=text)
        return self.format_help()

    def unknown(self, words: Iterable[str]) -> list[str]:
        """List the options among the words that were not declared."""
        names = [_option_name(word) for word in words]
        return [name for name in names if name is not None and self._known(name) is None]

    def fail_on_unknown(self, name: str) -> NoReturn:
        """Raise the error for an option that does not exist."""
        without_name = called_here(name, self._without_name)
        if without_name:
            shown = self._without_name[without_name[0]]
            raise UserError(f"unknown option --{name}: here {shown} is given without a name (usage: {self.usage})")
        known = [*self._declared, *self._help_flags]
        if self._unknown is not None:
            raise self._unknown(name, known)
        raise unknown_option(name, known, f"unknown option --{name}", dashes=True)

    def _known(self, name: str) -> tuple[str, str | None] | None:
        """Return an option's declared spelling, and "false" if it is a switch that is turned off; None if unknown."""
        if name in self._declared:
            return name, None
        positive = name.removeprefix("no_")
        if positive != name and positive in self._declared and is_switch(self._declared[positive][0]):
            return positive, "false"
        return None

    def _annotation(self, name: str) -> Any:
        """Return the type of a field."""
        return next(annotation for annotation, field in self._declared.values() if field == name)

    def _normalised(self, words: list[str]) -> list[str]:
        """Rewrite the words with one spelling per option, and as `--name=value` if there is one value."""
        result, position = [], 0
        given: dict[str, tuple[str, str]] = {}
        while position < len(words):
            word, position = words[position], position + 1
            name = _option_name(word)
            if name is None:
                result.append(word)
                continue
            known = self._known(name)
            if known is None:
                self.fail_on_unknown(name)
            spelling, value = known
            annotation, field = self._declared[spelling]
            following = words[position] if position < len(words) else None
            if "=" in word:
                value = word.partition("=")[2]
            elif value is None and is_switch(annotation):
                value = "true"
                if following is not None and following.lower() in _SWITCH_WORDS:
                    value, position = following, position + 1
            elif value is None and not (is_list(annotation) and not _takes_one(annotation)):
                if following is None or _option_name(following) is not None:
                    raise UserError(f"option --{name} needs a value")
                value, position = following, position + 1
            if value is not None and not is_list(annotation):
                twice = field in given and given[field][1] != value
                if twice and is_first_process():
                    print(f"ladder: {_given_twice(given[field], (name, value))}", file=sys.stderr)
                given[field] = (name, value)
            result.append(f"--{spelling}" if value is None else f"--{spelling}={value}")
        return result


def _given_twice(first: tuple[str, str], second: tuple[str, str]) -> str:
    """What to say of a setting with two values, from how each was spelt and what it said."""
    from ladder_model_cards.secrets import hide_secrets, is_secret_name

    (earlier, old), (name, new) = first, second
    if is_secret_name(name):
        return f"--{name} is given twice, with two values: the last one counts"
    old, new = hide_secrets(old), hide_secrets(new)
    if earlier == name:
        return f"--{name} is given twice, as {old} and as {new}: the last one counts"
    return f"--{earlier} {old} and --{name} {new} are one setting: the last one counts"


def _aliases(name: str) -> list[str]:
    """List the other names of a field."""
    return [alias for alias, field in _ALIASES if field == name]


def _option_name(word: str) -> str | None:
    """Return the name in `--name` or `--name=value`, with underscores; None for any other word."""
    if not word.startswith("--") or len(word) == 2:
        return None
    return word[2:].partition("=")[0].replace("-", "_")


def _takes_one(annotation: Any) -> bool:
    """Tell whether an option is one text or a list of texts. Then each use of it gives one."""
    return str in typing.get_args(annotation)


def _flat(value: list[Any], annotation: Any) -> list[str]:
    """Join the words of an option that was given several times; the last word counts if it takes a single value."""
    words = [word for entry in value for word in (entry if isinstance(entry, list) else [entry])]
    return words if is_list(annotation) else words[-1:]


def _metavar(annotation: Any) -> str:
    """Return what stands for the value in the help."""
    members = [annotation, *typing.get_args(annotation)]
    members += [inner for member in members if is_list(member) for inner in typing.get_args(member)]
    for kind, shown in ((float, "NUMBER"), (int, "N"), (bool, "[true|false]")):
        if kind in members:
            return shown
    return "{...}" if any(typing.get_origin(member) is dict for member in members) else "X"


def _help(item: Field) -> str:
    """Return the help of a field with its default, escaped for argparse (which reads % as a format)."""
    text = " ".join(str(item.metadata.get("help", "")).split())
    choices = [str(choice) for choice in item.metadata.get("choices") or ()]
    if choices and not all(choice in text for choice in choices):
        text = f"One of {', '.join(choices)}. {text}"
    default = default_of(item)
    if default is not None and "default:" not in text.lower() and not isinstance(default, (list, dict)):
        text = f"{text} (default: {getattr(default, 'value', default)})"
    return text.replace("%", "%%")
