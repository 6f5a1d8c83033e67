"""A command of `ladder` as a line for a shell, with the settings that it needs and every word quoted where needed."""

import shlex
from collections.abc import Mapping
from typing import Any


def ladder_command(name: str, *positionals: str, **options: Any) -> str:
    """Write a command that can be pasted into a shell; see `command_words`."""
    return shlex.join(["ladder", *command_words(name, *positionals, **options)])


def command_words(name: str, *positionals: str, **options: Any) -> list[str]:
    """Write a command as the words after `ladder`.

    Args:
        name: The command, with its task where it has one: "evaluate knn".
        *positionals: Arguments without a name.
        **options: Option to its value. True stands for a switch that is on. An option that is None, False or empty is
            left out. Several numbers follow one another; each of several texts gets the name again, as --dataset asks.
    """
    words = [*name.split(), *positionals]
    for option, value in options.items():
        if value is True:
            words.append(f"--{option}")
        elif value is not None and value is not False:
            each = list(value) if isinstance(value, (list, tuple)) else [value]
            if all(isinstance(part, str) for part in each):
                words += [word for part in each for word in (f"--{option}", part)]
            else:
                words += [f"--{option}", *(f"{part:g}" if isinstance(part, float) else str(part) for part in each)]
    return words


def typed(fields: Mapping[str, list[str]], *names: str) -> dict[str, Any]:
    """Those of some options that were typed, as `ladder_command` takes them.

    Args:
        fields: Option to the words after it.
        *names: Options to keep.
    """
    return {name: fields[name] for name in names if name in fields}
