"""`ladder finetune`: fine-tunes a model on labelled data, prints its scores and how to load the folder."""

from ..config.fields import fields_of, read_words
from ..config.shell import ladder_command, typed
from ..data.left_out import is_first_process
from ..errors import said_once_per_machine
from ..evaluation.options import TASK_OPTIONS, read_options
from ..finetuning.options import FINETUNE_OPTIONS
from ..models.reference import model_folder, with_revision
from .options import OF_THE_DATA, FinetuneOptions


def finetune_command(options: FinetuneOptions) -> int:
    """Fine-tune as the command line asks.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: there is no such setting, model or data set, or the task cannot be done on it.
        TrainingStopped: the loss is not finite.
    """
    declared = fields_of(FINETUNE_OPTIONS[options.task])
    with said_once_per_machine():
        settings = {name: read_words(words, declared[name], name) for name, words in options.fields.items()}
        read_options(FINETUNE_OPTIONS[options.task], settings)
        folder = with_revision(model_folder(options.model), options.revision)
    if is_first_process():
        print(f"fine-tuning {options.model} for {options.task} on {options.dataset}", flush=True)

    # torch is imported only once the settings are known to be right.
    from ..finetuning.run import finetune, load_line
    from ..runs.agreement import chosen_by_first

    result = finetune(
        options.task,
        folder,
        options.dataset,
        options.output,
        test_dataset=options.test_dataset,
        device=options.device,
        seed=options.seed,
        untrained=options.untrained,
        **settings,
    )

    def say() -> None:
        print(result.table())
        if not options.untrained:
            print("what pretraining was worth: --untrained fine-tunes random weights alike, for a column beside these")
        if options.task == "detection":
            print(f"transformers has no such detector; of {options.output} it loads the backbone, with AutoModel")
        print(f"load it with\n  {load_line(options.task, options.output)}")
        print(f"next: {_next(options)}")

    chosen_by_first(say)
    return 0


def _next(options: FinetuneOptions) -> str:
    """The command that says what fine-tuning was worth: the same task with the backbone left as it was."""
    task = "linear" if options.task == "classification" else options.task
    command = ladder_command(
        f"evaluate {task}",
        model=with_revision(options.model, options.revision),
        dataset=options.dataset,
        test_dataset=options.test_dataset,
        **typed(options.fields, *(name for name in OF_THE_DATA if name in fields_of(TASK_OPTIONS[task]))),
        freeze_backbone=task != "linear",
    )
    return f"{command}  (the same backbone, frozen)"
