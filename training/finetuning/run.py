"""From a pretrained backbone and labelled data to a folder with a fine-tuned model and its scores."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TrainingStopped, UserError
from ..evaluation.object_detection.task import fit_and_score as detect
from ..evaluation.report import EvaluationResult
from ..evaluation.task_run import Outcome, Request, TaskRun, run_task
from ..evaluation.untrained import untrained_copy
from ..loading.progress import say
from ..models.provenance import licence_line, provenance_of
from ..runs.agreement import chosen_by_first
from .classification import finetune_classification
from .detection import save_detector
from .folder import check_folder, write_folder
from .options import FINETUNE_OPTIONS
from .segmentation import as_upernet, finetune_segmentation


def finetune(
    task: str,
    model: str,
    dataset: Any,
    output: str | Path,
    *,
    test_dataset: Any = None,
    device: Any = None,
    seed: int = 0,
    untrained: bool = False,
    **settings: Any,
) -> EvaluationResult:
    """Fine-tune a model on labelled data, score it, and write a folder.

    Args:
        task: "classification", "detection" or "segmentation".
        model: A run's folder, a checkpoint, an exported folder or a Hub name.
        dataset: Name, folder, `DatasetDict` or `Dataset`, as for an evaluation.
        output: Folder for the fine-tuned model; its scores are written to `evaluation/` in it.
        test_dataset: Data set to score instead of a split of `dataset`.
        device: Default: a GPU if there is one, or all that `accelerate launch` gives.
        seed: Of the head's weights, the order and the augmentation.
        untrained: Whether the same architecture with random weights is fine-tuned too, with the same settings. Its
            scores stand beside those of the model; it is not written.
        **settings: Fields of the task's class in `options.py`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
        TrainingStopped: the loss is not finite.
    """
    if task not in FINETUNE_OPTIONS:
        raise UserError(f"there is no task {task!r} to fine-tune for; one of {', '.join(FINETUNE_OPTIONS)}")
    folder = check_folder(output)
    runs: list[TaskRun] = []
    outcomes: list[Outcome] = []

    def work(run: TaskRun) -> Outcome:
        outcome = _WORK[task](run)
        runs.append(run)
        outcomes.append(replace(outcome, task=f"finetune_{task}"))
        return outcomes[0]

    request = Request(model, dataset, test_dataset, None, device, seed, settings)
    result = run_task(FINETUNE_OPTIONS[task], work, request)
    chosen_by_first(lambda: _write(task, runs[0], outcomes[0], result, folder))
    if untrained:
        runs.clear()  # the network that is written needs no memory any more
        say("fine-tuning the same architecture from random weights ...")
        with untrained_copy(model, seed) as copy:
            try:
                result.untrained = run_task(FINETUNE_OPTIONS[task], _WORK[task], replace(request, model=copy)).metrics
            except TrainingStopped as error:
                result.notes.append(f"the untrained network could not be trained: {error}")
        chosen_by_first(lambda: result.save(folder))
    return result


def load_line(task: str, folder: str | Path) -> str:
    """The line of Python that loads the folder of a task."""
    if task == "detection":
        return f"ladder_training.finetuning.detection.load_detector({str(folder)!r})"
    name = {"classification": "AutoModelForImageClassification", "segmentation": "AutoModelForSemanticSegmentation"}
    return f"transformers.{name[task]}.from_pretrained({str(folder)!r})"


def _write(task: str, run: TaskRun, outcome: Outcome, result: EvaluationResult, folder: Path) -> None:
    trained, options = run.trained, run.options

    def save(target: Path) -> None:
        if task == "classification":
            trained.save_pretrained(target)
        elif task == "segmentation":
            as_upernet(trained.cpu().eval(), len(outcome.classes), options).save_pretrained(target)
        else:
            detail = {
                **dataclasses.asdict(options),
                "masks": outcome.protocol["architecture"] == "Mask R-CNN",
                "image_mean": outcome.protocol["image_mean"],
                "image_std": outcome.protocol["image_std"],
            }
            save_detector(trained.cpu().eval(), outcome.classes, detail, target)

    size = outcome.protocol.get("image_size") if task == "classification" else None
    say(f"writing the fine-tuned model to {folder} ...")
    source = provenance_of(str(run.model))
    licence, line = licence_line(source, None)
    if line is not None:
        say(line)
    record = {
        "task": task,
        "model": result.model,
        "dataset": result.dataset,
        "classes": outcome.classes,
        "license": licence,
        "started_from": {**source, "model": result.model},
    }
    write_folder(folder, save, str(run.model), size, {**record, "metrics": result.metrics, "count": result.count})
    result.save(folder)


_WORK: dict[str, Callable[[TaskRun], Outcome]] = {
    "classification": finetune_classification,
    "detection": detect,
    "segmentation": finetune_segmentation,
}
