"""`ladder evaluate`: calls the function of a task and prints its table."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import evaluation
from ..config.fields import fields_of, read_words
from ..config.shell import ladder_command, typed
from ..errors import TrainingStopped, said_once_per_machine
from ..evaluation.options import TASK_OPTIONS, read_options, read_recipe
from ..finetuning.options import FINETUNE_OPTIONS
from ..models.reference import model_folder, with_revision
from ..models.verification import verified
from .options import OF_THE_DATA, EvaluateOptions

if TYPE_CHECKING:
    from ..evaluation import EvaluationResult


def evaluate_command(options: EvaluateOptions) -> int:
    """Evaluate as the command line asks.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such setting, model or data set, or the task cannot be done on it.
    """
    declared = fields_of(TASK_OPTIONS[options.task])
    with said_once_per_machine():
        settings = read_recipe(options.task, options.recipe) if options.recipe else {}
        settings |= {name: read_words(words, declared[name], name) for name, words in options.fields.items()}
        read_options(TASK_OPTIONS[options.task], settings)

    # torch is imported only once the settings are known to be right.
    from ..evaluation.backbone import default_output
    from ..runs.agreement import chosen_by_first

    with said_once_per_machine():
        folder = with_revision(model_folder(options.model), options.revision)
    if options.verify:
        folder = verified(folder)
    output = options.output or default_output(options.model)

    def evaluate(model: str, target: Path | None) -> "EvaluationResult":
        return getattr(evaluation, options.task)(
            model,
            options.dataset,
            test_dataset=options.test_dataset,
            output=target,
            device=options.device,
            seed=options.seed,
            **settings,
        )

    result = evaluate(folder, Path(output) if output else None)
    if options.untrained:
        _compare_with_untrained(result, evaluate, folder, options.seed)
    chosen_by_first(lambda: _say(result, options, output))
    return 0


def _compare_with_untrained(
    result: "EvaluationResult", evaluate: "Callable[[str, None], EvaluationResult]", model: str, seed: int
) -> None:
    """Add the untrained network's metrics to the result, and write its file again."""
    from ..evaluation.untrained import untrained_copy

    with untrained_copy(model, seed) as untrained:
        try:
            result.untrained = evaluate(untrained, None).metrics
        except TrainingStopped as error:
            result.notes.append(f"the untrained network could not be trained: {error}")
    path = result.path
    if path is not None:
        result.save(path.parent.parent)


def _say(result: "EvaluationResult", options: EvaluateOptions, output: str | Path | None) -> None:
    """Print the table and the next command. Only the first process does."""
    print(result.table())
    if output is None:
        print("no file was written: give --output DIR for a JSON file")
    elif (Path(output) / "run.json").is_file():
        print(f"next: {ladder_command('card', str(output))}  (writes these results into its README.md)")
    else:
        task = options.task if options.task in FINETUNE_OPTIONS else "classification"
        finetune = ladder_command(
            f"finetune {task}",
            model=with_revision(options.model, options.revision),
            dataset=options.dataset,
            test_dataset=options.test_dataset,
            output="DIR",
            **typed(options.fields, *(name for name in OF_THE_DATA if name in fields_of(FINETUNE_OPTIONS[task]))),
        )
        print(f"next: {finetune}  (the whole network, on the same images)")
