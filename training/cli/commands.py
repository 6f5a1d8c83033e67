"""The table of commands: what `ladder NAME` takes, what its help says, and where it runs.

A new command is one more row of `COMMANDS`, a dataclass of its options, and the function that does the work. Nothing
heavy is imported here: the module that a row names is imported only to run the command.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..compare.options import CompareOptions
from ..evaluation.embedding.options import EmbedOptions
from ..evaluation.options import TASK_OPTIONS
from ..exploration.options import ExploreOptions
from ..finetuning.options import FINETUNE_OPTIONS
from ..preparation.options import PrepareOptions
from . import help_text
from .options import (
    FORMATS,
    CardOptions,
    DemoOptions,
    EvaluateOptions,
    ExportOptions,
    FinetuneOptions,
    ImportOptions,
    InspectOptions,
    PretrainOptions,
    PushOptions,
    ReportOptions,
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of the command line.

    Attributes:
        name: The word after `ladder`.
        arguments: What follows the name, as the overview shows it.
        summary: What the command does, as the overview says it.
        usage: What follows the name in the command's own help, if that is more than `arguments`. `TASK` stands for
            the task that was named.
        description: First paragraph of the command's own help; with `tasks`, that of the command without a task.
        options: Dataclass of the command's own options. Its fields with a help text are options.
        run: "room.module:function" inside this package. The function takes an instance of `options` and returns the
            exit code.
        positionals: Fields of `options` that are given without a name, in this order.
        leading: A field of `options` that may be given without its name if it comes first.
        title: Heading of the command's own options.
        recipe_fields: Whether every field of a recipe is an option too. What was typed goes to `options.fields`.
        tasks: Task -> dataclass of its settings, for a command whose first word is a task. The task goes to
            `options.task`, and the settings that were typed to `options.fields`.
        end: Printed after the command's own help, but not after `--help-all`.
        continues: Whether the same command, after an interruption, continues where it stopped.
        models: Whether it reads or writes models with transformers.
        shared: Whether the processes that a launcher starts share its work; other commands are one process.
    """

    name: str
    arguments: str
    summary: str
    usage: str = ""
    description: str
    options: type
    run: str
    positionals: tuple[str, ...] = ()
    leading: str | None = None
    title: str = "options"
    recipe_fields: bool = False
    tasks: Mapping[str, type] | None = None
    end: str = ""
    continues: bool = False
    models: bool = True
    shared: bool = False

    def function(self) -> Callable[[Any], int | None]:
        """Import and return the function that runs the command."""
        module, _, name = self.run.partition(":")
        return getattr(import_module(f"...{module}", __name__), name)


_ROWS = (
    Command(
        name="pretrain",
        arguments="[RECIPE.yaml] [--dataset D] [--output DIR] [--any_field value]",
        summary="pretrain; the same command again goes on where the run stopped",
        usage="[RECIPE.yaml] [--dataset D] [--output DIR] [--any_field value ...]",
        description=help_text.PRETRAIN,
        options=PretrainOptions,
        run="cli.pretrain:pretrain_command",
        positionals=("recipe",),
        recipe_fields=True,
        end=help_text.PRETRAIN_END,
        continues=True,
        shared=True,
    ),
    Command(
        name="evaluate",
        arguments=f"{'|'.join(TASK_OPTIONS)} --model M --dataset D",
        summary="fit on the train split, score the test split; a table and a JSON file",
        usage="TASK --model M --dataset D [--output DIR] [--any_setting value ...]",
        description="One task per call; `ladder evaluate TASK --help` lists its settings. On many GPUs: accelerate "
        "launch -m ladder_training evaluate TASK ...",
        options=EvaluateOptions,
        run="cli.evaluate:evaluate_command",
        title="what is evaluated",
        tasks=TASK_OPTIONS,
        shared=True,
    ),
    Command(
        name="finetune",
        arguments=f"{'|'.join(FINETUNE_OPTIONS)} --model M --dataset D --output DIR",
        summary="fine-tune on labelled data; a folder that transformers loads, and its scores",
        usage="TASK --model M --dataset D --output DIR [--any_setting value ...]",
        description="One task per call; `ladder finetune TASK --help` lists its settings.",
        options=FinetuneOptions,
        run="cli.finetune:finetune_command",
        title="what is fine-tuned",
        tasks=FINETUNE_OPTIONS,
        shared=True,
    ),
    Command(
        name="embed",
        arguments="--model M --dataset D --output FILE",
        summary="features of every image as Parquet or .npy; the same command again goes on",
        usage="--model M --dataset D --output FILE.parquet [--stages stage4 all] [--split test] [--normalize]",
        description="Writes the features of every image of a data set to one file: a column per stage in .parquet, one "
        "matrix in .npy (ids and labels lie beside it), with the id (path, key or row), split and label of each image. "
        "On many GPUs: accelerate launch -m ladder_training embed ...",
        options=EmbedOptions,
        run="cli.embed:embed_command",
        continues=True,
        shared=True,
    ),
    Command(
        name="compare",
        arguments="RECIPE.yaml --methods byol ladder --seeds 0 1 2",
        summary="train and evaluate methods on the same budget",
        usage="RECIPE.yaml --methods ladder byol --seeds 0 1 2 [--any_field value ...]",
        description="Trains and evaluates methods on the same budget; the same command again does what is missing.",
        options=CompareOptions,
        run="compare.command:compare_command",
        positionals=("recipe",),
        title="comparison",
        recipe_fields=True,
        continues=True,
    ),
    Command(
        name="export",
        arguments=f"CHECKPOINT --format {'|'.join(FORMATS)} --output DIR",
        summary="the backbone for other libraries",
        description="Writes the online backbone for other libraries.",
        options=ExportOptions,
        run="cli.export:export_command",
        positionals=("checkpoint",),
    ),
    Command(
        name="import",
        arguments="FILE --output DIR",
        summary="weights of torchvision, timm, lightly or DeepMind's BYOL as a model's folder",
        description="Reads a ResNet of torchvision, timm, lightly or DeepMind's BYOL, weights only, into a folder that "
        "can be evaluated, compared and continued (ladder pretrain --from DIR).",
        options=ImportOptions,
        run="cli.import_weights:import_command",
        positionals=("file",),
    ),
    Command(
        name="card",
        arguments="DIR",
        summary="write the model card of a run again",
        description="Writes the model card of a run again; a section written by hand stays.",
        options=CardOptions,
        run="cli.publish:card_command",
        models=False,
        positionals=("directory",),
    ),
    Command(
        name="explore",
        arguments="--model M --dataset D",
        summary="a page to look at the images as a backbone sees them",
        usage="--model M --dataset D [--beside M2|untrained] [--space DIR]",
        description="Opens a page: images like this one, near duplicates, outliers, a map, and what each stage "
        "finds similar to a point. Two models side by side with --beside.",
        options=ExploreOptions,
        run="exploration.command:explore_command",
    ),
    Command(
        name="report",
        arguments="DIR",
        summary="a run or a comparison as one HTML page that needs no network",
        usage="DIR [--output FILE]",
        description="Writes a run, also one that is still going, or a comparison as one HTML file: state, curves, "
        "results, figures, plan, versions and command.",
        options=ReportOptions,
        run="cli.publish:report_command",
        models=False,
        positionals=("directory",),
    ),
    Command(
        name="push",
        arguments="DIR USER/NAME [--private]",
        summary="publish a run on the Hub",
        usage="DIR USER/NAME [--private] [--pretraining] [--revision BRANCH] [--tag TAG] [--dry_run]",
        description="Publishes a run on the Hub in one commit: the native backbone, its preprocessor, the card and its "
        "figures.",
        options=PushOptions,
        run="cli.publish:push_command",
        models=False,
        positionals=("directory", "repo"),
    ),
    Command(
        name="inspect",
        arguments="--dataset D",
        summary="what is in a data set, the views that training would see, how fast images are read",
        usage="--dataset D [--recipe RECIPE.yaml] [--output DIR]",
        description="Says what is in a data set, draws the views that training would see, and measures how fast images "
        "are read.",
        options=InspectOptions,
        run="cli.inspect_data:inspect_command",
        leading="recipe",
    ),
    Command(
        name="prepare",
        arguments="--dataset D --output DIR",
        summary="rewrite a data set once into small shards that train fast; the same command again goes on",
        usage="--dataset D --output DIR [--format webdataset] [--short_side 320] [--workers N]",
        description="Rewrites a data set once into shards of small images, which pretrain reads several times faster "
        "than large photographs. Splits, labels and other plain columns are kept; unreadable images are left out and "
        "listed; images of the same content are counted.",
        options=PrepareOptions,
        run="preparation.command:prepare_command",
        models=False,
        continues=True,
    ),
    Command(
        name="demo",
        arguments="DIR",
        summary="pretrain on handwritten digits in a few minutes, evaluate, export, reload",
        description="Pretrains on handwritten digits in a few minutes, evaluates before and after, exports and "
        "reloads.",
        options=DemoOptions,
        run="cli.demo:demo",
        positionals=("directory",),
    ),
)
COMMANDS: Mapping[str, Command] = {row.name: row for row in _ROWS}
