"""What the classification tasks share: columns, classes, features of both splits, and metrics of a classifier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ...config.launchers import launched_processes
from ...errors import UserError
from ...loading.depth import say_if_dark
from ...models.stage_sizes import check_image_size
from ...runs.agreement import all_or_none, chosen_by_first, patient_group, said_once
from .. import splits as splits_module
from ..backbone import ImageSettings, StageFeatures, load_backbone, load_image_settings, padding_notes
from ..classes import ClassIndex, class_index, label_feature
from ..features import FeaturePart, FeatureSet, bad_image_notes, extract_part
from ..image_transforms import CenterTransform
from ..shared_features import gathered
from ..task_run import Outcome, TaskRun

TOP_FIVE_FROM = 6


@dataclass
class ClassificationTask:
    """Model and data of a task on labelled images, checked.

    Attributes:
        run: Options, splits, device and notes.
        backbone: The model's online backbone, on the run's device.
        settings: How images are prepared.
        image_column: Column that holds the images.
        label_column: Column that holds the labels.
        index: Names and numbers of the classes.
    """

    run: TaskRun
    backbone: StageFeatures
    settings: ImageSettings
    image_column: str
    label_column: str
    index: ClassIndex


@dataclass
class ClassificationData:
    """Features and class numbers of both splits, computed once.

    Attributes:
        task: Model and data.
        fit: Features of the split that is fitted on.
        fit_labels: Its class numbers, int64 (n,).
        score: Features of the scored split.
        score_labels: Its class numbers, int64 (m,).
    """

    task: ClassificationTask
    fit: FeatureSet
    fit_labels: Tensor
    score: FeatureSet
    score_labels: Tensor


def open_classification(run: TaskRun) -> ClassificationTask:
    """Find the columns, check all labels that can be read without reading images, and load the model.

    Raises:
        UserError: see `ClassIndex`, `choose_device` and `load_backbone`.
    """
    options, splits = run.options, run.splits
    image = splits_module.image_column(splits.fit, options.image_column)
    label = splits_module.label_column(splits.fit, options.label_column)
    for column, option in ((image, "image_column"), (label, "label_column")):
        splits_module.check_column(splits.score, column, option)
    for part in (splits.fit, splits.score):
        _check_is_class(part, label)
    index = class_index(splits.fit, splits.score, label, splits.fit_split, splits.score_split)
    if not splits_module.is_streaming(splits.fit):
        score = [] if splits_module.is_streaming(splits.score) else splits.score[label]
        _numbered(index, splits.fit[label], score, splits.fit_split)
    device = run.device
    settings = load_image_settings(run.model, options.image_size, options.crop_fraction, options.image_range)
    say_if_dark(splits.name, splits.fit, image, settings.value_range)
    backbone = load_backbone(run.model, device, trained_padding=True)
    check_image_size(backbone, backbone, settings.size, backbone.stages[-1])
    return ClassificationTask(run, backbone, settings, image, label, index)


def on_features(run: TaskRun, work: Callable[[ClassificationData], Outcome]) -> Outcome:
    """Run the backbone once over both splits, on all processes, and do the rest of a task in the first one.

    Args:
        run: Of the task.
        work: The rest. Its outcome, and what it notes in the run, are those of a single process.

    Returns:
        The outcome, in every process.

    Raises:
        UserError: see `open_classification`, `extract_features` and `number_labels`; or several processes were started
            for a stream.
    """
    splits, group = run.splits, None
    if launched_processes() > 1:
        with said_once():
            if any(splits_module.is_streaming(part) for part in (splits.fit, splits.score)):
                raise UserError(
                    f"a stream is read by one process here, but {launched_processes()} were started: leave out "
                    "`accelerate launch`, or leave out streaming"
                )
        run.accelerate()
        group = patient_group()
    task = open_classification(run) if group is None else all_or_none(lambda: open_classification(run))
    named = ((splits.fit, splits.fit_split), (splits.score, splits.score_split))
    fit, score = (_features(task, part, name, group) for part, name in named)

    run.notes += padding_notes(run.model)

    def rest() -> tuple[Outcome, list[str]]:
        # Only the first process calls this, and only there are the features.
        fitted = cast(FeaturePart, fit).checked(splits.fit_split)
        scored = cast(FeaturePart, score).checked(splits.score_split)
        fit_labels, score_labels = number_labels(run, task.index, fitted.labels, scored.labels)
        run.notes += bad_image_notes(len(fitted.bad) + len(scored.bad), fitted.bad + scored.bad)
        return work(ClassificationData(task, fitted, fit_labels, scored, score_labels)), run.notes

    outcome, run.notes = rest() if group is None else chosen_by_first(rest, group)
    return outcome


def _features(task: ClassificationTask, dataset: Any, split: str, group: Any) -> FeaturePart | None:
    """The features of a split; with a group of several processes in the first one only."""
    accelerator, options = task.run.accelerator, task.run.options
    part = extract_part(
        task.backbone,
        dataset,
        CenterTransform(task.settings),
        image_column=task.image_column,
        label_column=task.label_column,
        split=split,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        device=task.run.device,
        process=0 if group is None else accelerator.process_index,
        processes=1 if group is None else accelerator.num_processes,
    )
    return part if group is None else gathered(part, group)


def classification_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute accuracy, its average over classes and, with six classes or more, top-5 accuracy.

    Args:
        scores: (images, classes); larger means more likely.
        labels: int64 (images,).
    """
    right = scores.argmax(dim=1) == labels
    seen = labels.bincount(minlength=scores.shape[1])
    right_per_class = labels[right].bincount(minlength=scores.shape[1])
    metrics = {
        "accuracy": right.double().mean().item(),
        "mean_class_accuracy": (right_per_class[seen > 0] / seen[seen > 0]).double().mean().item(),
    }
    if scores.shape[1] >= TOP_FIVE_FROM:
        metrics["accuracy_top5"] = (scores.topk(5, dim=1).indices == labels[:, None]).any(1).double().mean().item()
    return metrics


def classification_protocol(task: ClassificationTask, **facts: Any) -> dict[str, Any]:
    """How images and features were made, and the task's own facts, for the report."""
    return {
        "image_size": task.settings.size,
        "crop_fraction": task.settings.crop_fraction,
        "image_mean": task.settings.mean,
        "image_std": task.settings.std,
        "features": "average-pooled stages of the online network in eval mode",
        **facts,
    }


def number_labels(run: TaskRun, index: ClassIndex, fit: list[Any], score: list[Any]) -> tuple[Tensor, Tensor]:
    """Number the labels of both splits, int64 (n,) and (m,), and note in what their classes differ.

    Raises:
        UserError: an image has no label, only the scored split has images of a class, or there is one class only.
    """
    fit_labels, score_labels, notes = _numbered(index, fit, score, run.splits.fit_split)
    run.notes += notes
    return fit_labels, score_labels


def _numbered(index: ClassIndex, fit: list[Any], score: list[Any], fit_split: str) -> tuple[Tensor, Tensor, list[str]]:
    index.learn(fit)
    fit_numbers, score_numbers = index.fit_numbers(fit), index.score_numbers(score)
    notes = index.compare(fit_numbers, score_numbers)
    if len(set(fit_numbers)) < 2:
        raise UserError(f"split {fit_split} has one class only: {index.names[fit_numbers[0]]}")
    return torch.tensor(fit_numbers, dtype=torch.long), torch.tensor(score_numbers, dtype=torch.long), notes


def _check_is_class(dataset: Any, column: str) -> None:
    """Raise a UserError if a label column does not hold classes."""
    from datasets import ClassLabel, Value

    feature = label_feature(dataset, column)
    fits = feature is None or isinstance(feature, ClassLabel)
    if isinstance(feature, Value):
        fits = feature.dtype in ("string", "large_string", "bool") or feature.dtype.startswith(("int", "uint"))
    if not fits:
        raise UserError(f"label_column {column!r} holds no class per image ({feature}); name another with label_column")


def stratified_split(labels: Tensor, fraction: float, seed: int, *, at_least: int) -> tuple[Tensor, Tensor]:
    """Draw the same share of every class at random.

    Args:
        labels: int64 (n,).
        fraction: Share to draw, rounded per class.
        seed: Of the draw.
        at_least: Fewest images to draw of each class. With 0, at least one image of each class is left.

    Returns:
        Indices drawn and indices left, both in ascending order.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        count = max(at_least, round(fraction * len(members)))
        drawn[members[: count if at_least else min(count, len(members) - 1)]] = True
    return drawn.nonzero().squeeze(1), (~drawn).nonzero().squeeze(1)
