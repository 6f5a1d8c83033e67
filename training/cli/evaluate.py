"""`ladder evaluate`: calls the function of a task and prints its table."""

from pathlib import Path

from .. import evaluation
from ..config.fields import fields_of, read_words
from ..evaluation.options import TASK_OPTIONS, read_options, read_recipe
from ..models.reference import model_folder, with_revision
from ..models.verification import verified
from .options import EvaluateOptions


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
    settings = read_recipe(options.task, options.recipe) if options.recipe else {}
    settings |= {name: read_words(words, declared[name], name) for name, words in options.fields.items()}
    read_options(TASK_OPTIONS[options.task], settings)

    # torch is imported only once the settings are known to be right.
    from ..evaluation.backbone import default_output

    folder = with_revision(model_folder(options.model), options.revision)
    if options.verify:
        folder = verified(folder)
    output = options.output or default_output(options.model)
    result = getattr(evaluation, options.task)(
        folder,
        options.dataset,
        test_dataset=options.test_dataset,
        output=Path(output) if output else None,
        device=options.device,
        seed=options.seed,
        **settings,
    )
    print(result.table())
    if output is None:
        print("no file was written: give --output DIR for a JSON file")
    return 0
