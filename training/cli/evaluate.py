"""`ladder evaluate`: calls a task's function, prints its table, and says where the JSON file is."""

from pathlib import Path
from typing import Any

from .. import evaluation
from ..models.reference import model_folder, with_revision
from ..models.verification import verified
from .options import EvaluateOptions


def evaluate_command(task: str, options: EvaluateOptions, settings: dict[str, Any]) -> int:
    """Evaluate as the command line asks.

    Args:
        task: A task of `ladder_training.evaluation`.
        options: What is evaluated, and where the result goes.
        settings: Fields of the task's options.

    Raises:
        UserError: there is no such model or data set, or the task cannot be done on it.
    """
    from ..evaluation.backbone import default_output

    folder = with_revision(model_folder(options.model), options.revision)
    if options.verify:
        folder = verified(folder)
    output = options.output or default_output(options.model)
    result = getattr(evaluation, task)(
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
