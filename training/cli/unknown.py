"""An option that a command does not have: where it belongs, and what this command has instead."""

from collections.abc import Callable, Mapping, Sequence

from ..config.fields import fields_of, listed, unknown_option
from ..config.recipe import ALIASES, own_fields
from ..config.synonyms import called_here
from ..errors import UserError, near_names
from .commands import COMMANDS, Command
from .help_text import COMMON_INHERITED

MOST_PLACES = 4


def fails_for(command: Command, task: str | None) -> Callable[[str, Sequence[str]], UserError]:
    """Make what a parser calls for an option that it does not have.

    Args:
        command: Whose options are parsed.
        task: The task that was named.

    Returns:
        A function of the unknown name and the names there are, which returns the error.
    """

    def error(name: str, known: Sequence[str]) -> UserError:
        places, asked = _places(command, task), name
        if name not in places and not called_here(name, known):
            # Of a misspelt one: is the nearest one here or elsewhere?
            nearest = near_names(name, [*known, *(other for other in places if other not in known)])
            asked = nearest[0] if nearest and nearest[0] not in known else name
        message = f"unknown option --{name}"
        if asked not in places:
            return unknown_option(name, known, message, dashes=True)
        same_command = [place for place in places[asked] if place.split()[0] == command.name]
        where = listed((same_command or places[asked])[:MOST_PLACES], "and")
        message += f": {'it' if asked == name else f'--{asked}'} belongs to {where}"
        return unknown_option(asked, known, message, dashes=True, near=False)

    return error


def _places(command: Command, task: str | None) -> Mapping[str, list[str]]:
    """Option -> the commands, with their tasks, that have it, besides this one."""
    found: dict[str, list[str]] = {}
    for row in COMMANDS.values():
        for name, tasks in _options(row).items():
            places = [f"{row.name} {one}" for one in tasks] if tasks else [row.name]
            places = [place for place in places if place not in (command.name, f"{command.name} {task}")]
            if places:
                found.setdefault(name, []).extend(places)
    return found


def _options(command: Command) -> dict[str, list[str]]:
    """Option of a command -> the tasks that have it; none if the command itself has it."""
    found: dict[str, list[str]] = {}
    for task, settings in (command.tasks or {}).items():
        for name in fields_of(settings):
            found.setdefault(name, []).append(task)
    own = [name for name, (_, item) in fields_of(command.options).items() if "help" in item.metadata]
    if command.recipe_fields:
        own += [*own_fields(), *COMMON_INHERITED, *ALIASES]
    return {**found, **{name: [] for name in own if name not in command.positionals}}
