"""`ladder finetune`: fine-tunes a model on labelled data, prints its scores and how to load the folder."""

from ..config.fields import fields_of, read_words
from ..evaluation.options import read_options
from ..finetuning.options import FINETUNE_OPTIONS
from ..models.reference import model_folder, with_revision
from .options import FinetuneOptions


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
    settings = {name: read_words(words, declared[name], name) for name, words in options.fields.items()}
    read_options(FINETUNE_OPTIONS[options.task], settings)
    print(f"fine-tuning {options.model} for {options.task} on {options.dataset}", flush=True)

    # torch is imported only once the settings are known to be right.
    from ..finetuning.run import finetune, load_line
    from ..runs.agreement import chosen_by_first

    result = finetune(
        options.task,
        with_revision(model_folder(options.model), options.revision),
        options.dataset,
        options.output,
        test_dataset=options.test_dataset,
        device=options.device,
        seed=options.seed,
        **settings,
    )

    def say() -> None:
        print(result.table())
        if options.task == "detection":
            print(f"transformers has no such detector; of {options.output} it loads the backbone, with AutoModel")
        print(f"load it with\n  {load_line(options.task, options.output)}")
        print(f"next: {_next(options)}")

    chosen_by_first(say)
    return 0


def _next(options: FinetuneOptions) -> str:
    """The command that says what fine-tuning was worth: the same task with the backbone left as it was."""
    known = f"--model {options.model} --dataset {options.dataset}"
    if options.task == "classification":
        return f"ladder evaluate linear {known}  (the same backbone, frozen)"
    return f"ladder evaluate {options.task} {known} --freeze_backbone  (the same backbone, frozen)"
