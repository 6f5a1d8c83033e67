"""The `ladder` command: reads the words, calls the command, and turns the user's mistakes into one plain line.

Exit codes: 0 done; 2 a mistake of the user; 3 a run that was stopped because it must not go on; 130 interrupted.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec

from ..config.fields import build, fields_of, read_words, unknown_name
from ..config.options import METHODS
from ..config.recipe import OWN_GROUPS, inherited_fields, packaged_recipes, read_recipe, resolve
from ..errors import TrainingStopped, UserError
from . import help_text
from . import options as command_options
from .parser import OptionParser

TASKS = ("knn", "linear", "detection", "segmentation", "semi_supervised")


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `ladder`; default: those the process was started with.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except UserError as error:
        return _fail(f"ladder: error: {error}", 2)
    except TrainingStopped as error:
        return _fail(f"ladder: stopped: {error}", 3)
    except KeyboardInterrupt:
        hint = "; the same command goes on from the last checkpoint" if words[:1] in (["pretrain"], ["compare"]) else ""
        return _fail(f"ladder: interrupted{hint}", 130)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has had enough: nobody is left to tell.
        sys.stderr.close()
        return 141


def _fail(message: str, code: int) -> int:
    """Print a message as one line and give the exit code."""
    print(" ".join(message.split()), file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    """Call the command that the first word names."""
    if not words or words[0] in ("--help", "-h", "help", "--help-all", "--help_all"):
        _print_overview(everything=bool(words) and words[0].startswith("--help") and "all" in words[0])
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"ladder-siamese {version('ladder-siamese')}")
        return 0
    commands = _commands()
    if words[0] not in commands:
        raise unknown_name(words[0], commands, f"there is no command {words[0]!r}: one of {', '.join(commands)}")
    return commands[words[0]](words[1:]) or 0


def _commands() -> dict[str, Callable[[list[str]], int | None]]:
    """Command names to what runs them; `compare` where it is installed."""
    commands = {
        "pretrain": _pretrain,
        "evaluate": _evaluate,
        "compare": _compare,
        "export": _export,
        "card": _card,
        "push": _push,
        "inspect": _inspect,
        "demo": _demo,
    }
    return commands if _has_compare() else {name: run for name, run in commands.items() if name != "compare"}


def _has_compare() -> bool:
    return find_spec("ladder_training.compare") is not None


def _wants_help(words: list[str]) -> bool:
    return any(word in ("--help", "-h", "--help-all", "--help_all") for word in words)


def _recipe_parser(usage: str, description: str, positional: str | None, words: list[str]) -> OptionParser:
    """A parser of every recipe field; imports transformers only where an option or --help-all asks for its fields."""
    parser = OptionParser(usage, description)
    if positional:
        parser.add_argument(positional, metavar="RECIPE.yaml", help="YAML file, or the name of a packaged recipe.")
    for title, group in OWN_GROUPS.items():
        parser.add_fields(title, fields_of(group))
    parser.add_flag("help", "Show this text.")
    parser.add_flag("help-all", "Show every inherited option too.")
    everything = any(word in ("--help-all", "--help_all") for word in words)
    if everything or (not _wants_help(words) and parser.unknown(words)):
        declared = inherited_fields()
        declared.pop("output_dir", None)
        parser.add_fields("inherited from transformers' TrainingArguments", declared)
    return parser


def _print_overview(everything: bool) -> None:
    """`ladder --help`: the commands, and our own options."""
    compare = help_text.COMPARE if _has_compare() else ""
    print(help_text.OVERVIEW.format(compare=compare, recipes=", ".join(packaged_recipes())))
    words = ["--help-all"] if everything else ["--help"]
    parser = _recipe_parser(help_text.PRETRAIN_USAGE, "", None, words)
    print(parser.full_help().split("\n\n", 1)[1].rstrip())
    if not everything:
        print(help_text.PRETRAIN_END.format(common=help_text.common_options()))


def _pretrain(words: list[str]) -> int | None:
    parser = _recipe_parser(help_text.PRETRAIN_USAGE, help_text.PRETRAIN, "recipe", words)
    if _wants_help(words):
        print(parser.full_help().rstrip())
        if "--help-all" not in words and "--help_all" not in words:
            print(help_text.PRETRAIN_END.format(common=help_text.common_options()))
        return 0
    positionals, options = parser.parse(words)
    recipe = read_recipe(positionals["recipe"])
    resolved = resolve(recipe, options)

    from ..pretraining.run import pretrain

    return pretrain(resolved)


def _evaluate(words: list[str]) -> int | None:
    from ..evaluation.options import TASK_OPTIONS, read_options
    from ..evaluation.options import read_recipe as read_task_recipe

    task = words[0] if words and not words[0].startswith("-") else None
    usage = f"ladder evaluate {task or '|'.join(TASKS)} --model M --dataset D [--output DIR] [--any_setting value ...]"
    if task is None:
        if _wants_help(words):
            print(f"usage: {usage}\n\nOne task per call; `ladder evaluate TASK --help` lists its settings.")
            return 0
        raise UserError(f"evaluate needs a task: one of {', '.join(TASKS)}")
    task = task.replace("-", "_")
    if task not in TASK_OPTIONS:
        raise unknown_name(task, TASK_OPTIONS, f"there is no task {task!r}: one of {', '.join(TASKS)}")
    parser = OptionParser(usage, (TASK_OPTIONS[task].__doc__ or "").strip())
    parser.add_fields("what is evaluated", fields_of(command_options.EvaluateOptions))
    parser.add_fields("settings of the task", fields_of(TASK_OPTIONS[task]))
    if _wants_help(words):
        print(parser.full_help().rstrip())
        return 0
    _, given = parser.parse(words[1:])
    options = build(command_options.EvaluateOptions, given)
    settings = read_task_recipe(task, options.recipe) if options.recipe else {}
    settings |= _settings(TASK_OPTIONS[task], given)
    read_options(TASK_OPTIONS[task], settings)

    from .evaluate import evaluate_command

    return evaluate_command(task, options, settings)


def _settings(options_class: type, given: dict[str, list[str]]) -> dict[str, object]:
    """The settings of a task that were typed, with their types."""
    declared = fields_of(options_class)
    return {name: read_words(words, declared[name], name) for name, words in given.items() if name in declared}


def _simple(
    usage: str, description: str, options_class: type, positionals: tuple[str, ...], words: list[str]
) -> object | None:
    """Options of a command with a fixed, short list of them; None where only help was asked for."""
    parser = OptionParser(usage, description)
    declared = fields_of(options_class)
    for name in positionals:
        parser.add_argument(name, metavar=name.upper(), help=declared[name][1].metadata["help"])
    parser.add_fields("options", {name: item for name, item in declared.items() if name not in positionals})
    if _wants_help(words):
        print(parser.full_help().rstrip())
        return None
    found, given = parser.parse(words)
    return build(options_class, given, found)


def _export(words: list[str]) -> int | None:
    formats = "|".join(command_options.FORMATS)
    options = _simple(
        f"ladder export CHECKPOINT --format {formats} --output DIR",
        "Writes the online backbone for other libraries.",
        command_options.ExportOptions,
        ("checkpoint",),
        words,
    )
    if options is None:
        return 0
    from .export import export_command

    return export_command(options)


def _card(words: list[str]) -> int | None:
    options = _simple(
        "ladder card DIR",
        "Writes the model card of a run again; a section written by hand stays.",
        command_options.CardOptions,
        ("directory",),
        words,
    )
    if options is None:
        return 0
    from .publish import card_command

    return card_command(options)


def _push(words: list[str]) -> int | None:
    options = _simple(
        "ladder push DIR USER/NAME [--private] [--pretraining] [--revision BRANCH] [--tag TAG] [--dry_run]",
        "Publishes a run on the Hub in one commit: the native backbone, its preprocessor, the card and its figures.",
        command_options.PushOptions,
        ("directory", "repo"),
        words,
    )
    if options is None:
        return 0
    from .publish import push_command

    return push_command(options)


def _demo(words: list[str]) -> int | None:
    options = _simple(
        "ladder demo DIR",
        "Pretrains on handwritten digits in a few minutes, evaluates before and after, exports and reloads.",
        command_options.DemoOptions,
        ("directory",),
        words,
    )
    if options is None:
        return 0
    from .demo import demo

    return demo(options)


def _inspect(words: list[str]) -> int | None:
    # A recipe may stand first without --recipe, as in the other commands.
    if words and not words[0].startswith("-"):
        words = ["--recipe", *words]
    options = _simple(
        "ladder inspect --dataset D [--recipe RECIPE.yaml] [--output DIR]",
        "Says what is in a data set, draws the views that training would see, and measures how fast images are read.",
        command_options.InspectOptions,
        (),
        words,
    )
    if options is None:
        return 0
    from .inspect_data import inspect_command

    return inspect_command(options)


def _compare(words: list[str]) -> int | None:
    from ..compare.options import CompareOptions

    usage = f"ladder compare RECIPE.yaml --methods {' '.join(METHODS[:2])} --seeds 0 1 2 [--any_field value ...]"
    description = "Trains and evaluates methods on the same budget; the same command again does what is missing."
    parser = _recipe_parser(usage, description, "recipe", words)
    declared = fields_of(CompareOptions)
    parser.add_fields("comparison", {name: item for name, item in declared.items() if name not in ("recipe", "fields")})
    if _wants_help(words):
        print(parser.full_help().rstrip())
        return 0
    positionals, given = parser.parse(words)
    options = build(CompareOptions, {name: word for name, word in given.items() if name in declared}, positionals)
    options.fields = {name: word for name, word in given.items() if name not in declared}

    from ..compare import compare_command

    return compare_command(options)
