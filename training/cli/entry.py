"""The `ladder` command: finds the command in the table, reads its options, runs it, and reports mistakes in one line.

Exit codes: 0 done; 2 a mistake of the user, or a refusal of the operating system; 3 a run that was stopped because it
must not go on; 130 interrupted by Ctrl-C, 143 by SIGTERM; 141 the reader of the output closed the pipe.
"""

import contextlib
import os
import sys
from dataclasses import MISSING
from typing import Any

from ..config.fields import Fields, build, fields_of, unknown_name
from ..config.launchers import launched_processes, started_alone
from ..config.recipe import OWN_GROUPS, inherited_fields, packaged_recipes
from ..data.left_out import is_first_process, told_once
from ..errors import TrainingStopped, UserError, said_once_per_machine, system_error, worker_death
from ..runs.interruption import Interrupted, deaf_to_interrupts, ended_by_signals
from . import help_text
from .commands import COMMANDS, Command
from .parser import OptionParser
from .unknown import fails_for

_HELP, _HELP_ALL = ("--help", "-h"), ("--help-all", "--help_all")


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `ladder`; default: those the process was started with.

    Returns:
        The exit code.
    """
    with ended_by_signals():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(words: list[str]) -> int:
    try:
        with told_once():
            code = _dispatch(words)
            sys.stdout.flush()
            return code
    except UserError as error:
        return _fail(f"ladder: error: {error}", 2, everywhere=error.shared, same_here=error.same_here)
    except TrainingStopped as error:
        return _fail(f"ladder: stopped: {error}", 3, everywhere=error.shared)
    except RuntimeError as error:
        died = worker_death(error)
        if died is None:
            raise
        return _fail(f"ladder: error: {died}", 2)
    except Interrupted as error:
        return _fail(_interrupted(words, f" by {error}", error.then), error.code, everywhere=error.shared)
    except KeyboardInterrupt:
        with deaf_to_interrupts():
            return _fail(_interrupted(words), 130)
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): exit quietly.
        _drop_output()
        return 141
    except OSError as error:
        _drop_output()
        return _fail(f"ladder: error: {system_error(error)}", 2)


def run_command(command: Command, words: list[str]) -> int:
    """Run a command of the table, or print its help.

    Args:
        command: From `COMMANDS`.
        words: What was typed after its name.

    Returns:
        The exit code.

    Raises:
        UserError: a word cannot be used, or the command failed by the user's mistake.
    """
    with said_once_per_machine():  # all processes of a job are given the same words
        options = _read_words(command, words)
    if options is None:
        return 0
    if command.models:
        _hide_bars_of_transformers()
    return command.function()(options) or 0


def _read_words(command: Command, words: list[str]) -> Any:
    """Read the options of a command from what was typed, or print its help and return None.

    Raises:
        UserError: a word cannot be used, or a launcher has started several processes of a command that is one.
    """
    wants_help, everything = _asks(words, _HELP + _HELP_ALL), _asks(words, _HELP_ALL)
    positionals: dict[str, str] = {}
    if command.tasks is not None:
        if wants_help and not _starts_with_argument(words):
            print(f"usage: {_usage(command)}\n\n{command.description}")
            return None
        positionals["task"], words = _task(command, words), words[1:]
    if command.leading and _starts_with_argument(words):
        words = [f"--{command.leading}", *words]
    if not wants_help:
        _check_processes(command)
        _say_start(command)
    parser = _parser(command, words, positionals.get("task"))
    if wants_help:
        print(parser.full_help().rstrip())
        if command.end and not everything:
            print(command.end)
        return None
    found, given = parser.parse(words)
    own = fields_of(command.options)
    options = build(command.options, {name: word for name, word in given.items() if name in own}, positionals | found)
    if "fields" in own:
        options.fields = {name: word for name, word in given.items() if name not in own}
    return options


def _dispatch(words: list[str]) -> int:
    """Run the command that the first word names."""
    if not words or words[0] in (*_HELP, "help", *_HELP_ALL):
        _print_overview(everything=_asks(words[:1], _HELP_ALL))
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"ladder-siamese {version('ladder-siamese')}")
        return 0
    if words[0] not in COMMANDS:
        raise unknown_name(words[0], COMMANDS, f"there is no command {words[0]!r}: one of {', '.join(COMMANDS)}")
    return run_command(COMMANDS[words[0]], words[1:])


def _check_processes(command: Command) -> None:
    """Check that a launcher has not started several processes of a command that does not share its work among them.

    Where it does, and a launcher has started fewer than it was asked for, say so.

    Raises:
        UserError: it has.
    """
    count = launched_processes()
    if count > 1 and not command.shared:
        together = ", ".join(name for name, row in COMMANDS.items() if row.shared)
        raise UserError(
            f"`ladder {command.name}` works in one process, but a launcher has started {count} (WORLD_SIZE is "
            f"{count}): start it without accelerate or torchrun, which are for {together}"
        )
    if command.shared and (line := started_alone()) is not None:
        print(line, file=sys.stderr, flush=True)


def _say_start(command: Command) -> None:
    """Say at once that the command has started, in the main process: importing torch takes seconds on a slow disk."""
    if "torch" not in sys.modules and is_first_process():
        print(f"ladder {command.name}: loading the libraries ...", file=sys.stderr, flush=True)


def _hide_bars_of_transformers() -> None:
    """Leave out its bars for tensors loaded and files written, which end within a second and are drawn in logs too.

    Those of downloads stay.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    hidden = are_progress_bars_disabled()
    logging.disable_progress_bar()
    if not hidden:
        enable_progress_bars()


def _fail(message: str, code: int, everywhere: bool = False, same_here: bool = False) -> int:
    """Print a message as one line, without secrets, and return the exit code.

    Args:
        message: What to print.
        code: The exit code.
        everywhere: Whether all processes of the job fail with this message, so that the first one prints it.
        same_here: The same of all processes of this machine.
    """
    from ladder_model_cards.secrets import hide_secrets

    if (everywhere and not is_first_process()) or (same_here and os.environ.get("LOCAL_RANK", "0") != "0"):
        return code
    with contextlib.suppress(OSError):  # the code says the same where nothing can be printed
        print(hide_secrets(" ".join(message.split())), file=sys.stderr)
    return code


def _interrupted(words: list[str], how: str = "", then: str | None = None) -> str:
    """The message of a command that a signal ended."""
    command = COMMANDS.get(words[0]) if words else None
    if then is None and command is not None and command.continues:
        then = "the same command goes on from the last checkpoint"
    return f"ladder: interrupted{how}{'' if then is None else f'; {then}'}"


def _drop_output() -> None:
    """Let Python write what is left of the output to nowhere: it would fail once more when the process ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _asks(words: list[str], flags: tuple[str, ...]) -> bool:
    """Tell whether one of the flags was typed."""
    return any(word in flags for word in words)


def _starts_with_argument(words: list[str]) -> bool:
    """Tell whether the first word is a value, not an option."""
    return bool(words) and not words[0].startswith("-")


def _usage(command: Command, task: str | None = None) -> str:
    """What the help shows after `usage:`."""
    usage = (command.usage or command.arguments).replace("TASK", task or "|".join(command.tasks or ()))
    return f"ladder {command.name} {usage}"


def _task(command: Command, words: list[str]) -> str:
    """Return the task that the first word names."""
    tasks = command.tasks or {}
    if not _starts_with_argument(words):
        raise UserError(f"{command.name} needs a task: one of {', '.join(tasks)}")
    task = words[0].replace("-", "_")
    if task not in tasks:
        raise unknown_name(task, tasks, f"there is no task {task!r}: one of {', '.join(tasks)}")
    return task


def _parser(command: Command, words: list[str], task: str | None) -> OptionParser:
    """Make the parser of a command's options."""
    settings = command.tasks[task] if command.tasks is not None and task is not None else None
    description = command.description if settings is None else (settings.__doc__ or "").strip()
    parser = OptionParser(_usage(command, task), description, fails_for(command, task))
    # A field without a help text is no option: the words of other dataclasses' fields are kept in it.
    own = {name: declared for name, declared in fields_of(command.options).items() if "help" in declared[1].metadata}
    for name in command.positionals:
        metadata = own[name][1].metadata
        optional = own[name][1].default is not MISSING
        shown = metadata.get("metavar") or name.upper()
        parser.add_positional(name, shown, metadata["help"], optional=optional)
    if command.recipe_fields:
        _add_recipe_fields(parser, words, own)
    options = {name: declared for name, declared in own.items() if name not in command.positionals}
    if options:
        parser.add_fields(command.title, options)
    if settings is not None:
        parser.add_fields("settings of the task", fields_of(settings))
    return parser


def _add_recipe_fields(parser: OptionParser, words: list[str], own: Fields) -> None:
    """Add every field of a recipe; transformers is imported only if its fields are typed or asked for."""
    for title, group in OWN_GROUPS.items():
        parser.add_fields(title, fields_of(group))
    parser.add_flag("help-all", "Show every inherited option too.")
    everything = _asks(words, _HELP_ALL)
    typed = [name for name in parser.unknown(words) if name not in own]
    if everything or (typed and not _asks(words, _HELP)):
        inherited = inherited_fields()
        inherited.pop("output_dir", None)
        parser.add_fields("inherited from transformers' TrainingArguments", inherited)


def _print_overview(everything: bool) -> None:
    """Print the commands, and the options of `ladder pretrain`."""
    rows = "\n".join(_overview_row(command) for command in COMMANDS.values())
    print(help_text.OVERVIEW.format(commands=rows, recipes=", ".join(packaged_recipes())))
    parser = OptionParser("ladder pretrain", "")
    _add_recipe_fields(parser, [*_HELP_ALL] if everything else [*_HELP], {})
    print(parser.full_help().split("\n\n", 1)[1].rstrip())
    if not everything:
        print(COMMANDS["pretrain"].end)


def _overview_row(command: Command) -> str:
    """A command's arguments and, in a second column, what it does; on two lines if the first column is too narrow."""
    call, column = f"  {command.name} {command.arguments}", 25
    return f"{call:<{column}}{command.summary}" if len(call) < column - 1 else f"{call}\n{'':{column}}{command.summary}"
