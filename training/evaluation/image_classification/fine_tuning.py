"""Semi-supervised classification: the whole network is fine-tuned with a small share of the labels.

The protocol is that of SimCLR and BYOL (Grill et al. 2020, appendix D.2): 1 % or 10 % of the labels, the same share of
every class; crops and flips; SGD with Nesterov momentum, and a larger learning rate for the classifier. Here a part of
the labelled images decides on the learning rate, and then the network is trained again on all of them, so that no other
label has a part in the choice.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ...errors import BadImageError, UserError
from ...loading.progress import progress
from ...runs.agreement import all_or_none, chosen_by_first
from .. import splits as splits_module
from ..features import bad_image_notes, check_readable, named_reason
from ..image_transforms import CenterTransform, RandomCropTransform
from ..options import SemiSupervisedOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task
from ..tuning import TunedBackbone, fine_tune, parameter_groups, shared_statistics, training_loader
from .task import (
    ClassificationTask,
    classification_metrics,
    classification_protocol,
    number_labels,
    open_classification,
    stratified_split,
)

MOMENTUM = 0.9


def semi_supervised(
    model: Any,
    dataset: Any,
    *,
    test_dataset: Any = None,
    output: Any = None,
    device: Any = None,
    seed: int = 0,
    **settings: Any,
) -> EvaluationResult:
    """Fine-tune backbone and classifier with a share of the labels and score the test images.

    Args:
        model: A run's folder, a Hub name or a loaded model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or a single `Dataset`, which needs `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        output: Folder that gets `evaluation/semi_supervised_1pct-DATASET.json`; None writes no file.
        device: Default: a GPU if there is one, or all that `accelerate launch` gives.
        seed: Of the choice of labels, the order and the crops.
        **settings: Fields of `SemiSupervisedOptions`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
        TrainingStopped: the loss is not finite.
    """
    request = Request(model, dataset, test_dataset, output, device, seed, settings)
    return run_task(SemiSupervisedOptions, _semi_supervised, request)


def _semi_supervised(run: TaskRun) -> Outcome:
    accelerator, options, splits = run.accelerate(), run.options, run.splits
    task, labels, score_labels, used, scored = all_or_none(lambda: _opened(run))
    rates, accuracies = options.learning_rates, {}
    held, kept = stratified_split(labels[used], options.holdout_fraction, run.seed, at_least=0)
    if len(rates) > 1 and len(held):
        for rate in rates:
            network = _train(task, labels, used[kept], rate)
            scores = _scores(network, task, splits.fit, used[held])
            accuracies[rate] = (scores.argmax(1) == labels[used[held]]).double().mean().item()
        # Accuracies may differ in their last digits between processes: the first one chooses.
        accuracies = chosen_by_first(lambda: accuracies)
        chosen = max(sorted(rates), key=lambda rate: (accuracies[rate], -rate))
    else:
        chosen = sorted(rates)[len(rates) // 2]
        if len(rates) > 1:
            run.notes.append(f"too few labels to hold some out: learning rate {chosen:g} was taken without a choice")
    network = _train(task, labels, used, chosen)
    scores = _scores(network, task, splits.score, scored)
    return Outcome(
        f"semi_supervised_{options.label_fraction * 100:g}pct",
        {"fine_tuned": classification_metrics(scores, score_labels)},
        len(used),
        len(score_labels),
        task.index.names,
        protocol=classification_protocol(
            task,
            features="backbone fine-tuned, linear classifier on the last stage",
            chosen_learning_rate=chosen,
            holdout_accuracy={str(rate): value for rate, value in accuracies.items()},
            steps=optimizer_steps(options, len(used), accelerator),
            global_batch=options.batch_size * accelerator.num_processes,
        ),
    )


def _opened(run: TaskRun) -> tuple[ClassificationTask, Tensor, Tensor, Tensor, Tensor]:
    """Open the task: also the labels to fit on, those of the scored images, and the images to fit on and to score."""
    task, splits = open_classification(run), run.splits
    if splits_module.is_streaming(splits.fit) or splits_module.is_streaming(splits.score):
        raise UserError("semi_supervised needs its data on disk: do not stream it")
    labels, score_labels = number_labels(
        run, task.index, splits.fit[task.label_column], splits.score[task.label_column]
    )
    used, _ = stratified_split(labels, run.options.label_fraction, run.seed, at_least=1)
    used = readable_images(task, splits.fit, used, splits.fit_split)
    scored = readable_images(task, splits.score, torch.arange(len(score_labels)), splits.score_split)
    return task, labels, score_labels[scored], used, scored


class Classifier(nn.Module):
    """A trainable backbone with a linear classifier on its last stage, which starts at zero."""

    def __init__(self, body: TunedBackbone, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(body.features.channels[-1], num_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Score images (batch, 3, height, width): (batch, classes)."""
        return self.classifier(list(self.body(pixel_values).values())[-1].mean(dim=(2, 3)))


def readable_images(task: ClassificationTask, dataset: Any, indices: Tensor, split: str) -> Tensor:
    """Which of the chosen images can be read; the others are named in the report. All are decoded for that.

    Args:
        task: Says how images are read; gets a note.
        dataset: The images.
        indices: Those that are to be used, int64 (n,).
        split: Name of the split.

    Raises:
        UserError: Too many cannot be read.
    """
    options = task.run.options
    images = _Readable(ChosenImages(task, dataset, indices, None, CenterTransform(task.settings)))
    loader = DataLoader(images, batch_size=options.batch_size, num_workers=options.num_workers, collate_fn=list)
    reasons = [reason for batch in progress(loader, f"checking {split}") for reason in batch]
    bad = [reason for reason in reasons if reason is not None]
    check_readable(len(reasons) - len(bad), bad, split)
    task.run.notes += bad_image_notes(len(bad), bad)
    return indices[[reason is None for reason in reasons]]


class _Readable(Dataset):
    """None for each image that can be read, else the reason."""

    def __init__(self, images: "ChosenImages") -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> str | None:
        try:
            self.images[position]
        except BadImageError as error:
            images = self.images
            return named_reason(images.dataset[images.indices[position]][images.column], error)
        return None


class ChosenImages(Dataset):
    """Chosen images as (pixels, class number). All of them can be read (see `readable_images`)."""

    def __init__(self, task: ClassificationTask, dataset: Any, indices: Tensor, labels: Tensor | None, transform: Any):
        self.dataset = splits_module.undecoded(dataset, task.image_column)
        self.column, self.indices, self.labels, self.transform = task.image_column, indices.tolist(), labels, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        position, seed = key if isinstance(key, tuple) else (key, None)
        index = self.indices[position]
        pixels = self.transform(self.dataset[index][self.column], seed)
        return pixels, -1 if self.labels is None else int(self.labels[index])


def optimizer_steps(options: Any, images: int, accelerator: Any) -> int:
    """Optimizer steps of all passes over `images` images, but at least `options.min_steps`."""
    batch = options.batch_size * accelerator.num_processes
    return max(options.min_steps, options.epochs * math.ceil(images / batch))


def _train(task: ClassificationTask, labels: Tensor, indices: Tensor, rate: float) -> Classifier:
    """Fine-tune a new network on the chosen images."""
    options, accelerator = task.run.options, task.run.accelerator
    steps = optimizer_steps(options, len(indices), accelerator)
    transform = RandomCropTransform(task.settings, options.min_crop_scale)
    images = ChosenImages(task, task.run.splits.fit, indices, labels, transform)
    loader = training_loader(images, options, steps, task.run.seed, accelerator, torch.utils.data.default_collate)
    classifier = Classifier(TunedBackbone(task.backbone, options.batch_norm), len(task.index.names))
    network = cast(Classifier, shared_statistics(classifier, options.batch_norm, accelerator))
    scaled = rate * options.batch_size * accelerator.num_processes / 256
    groups = [{**group, "lr": scaled} for group in parameter_groups(network.body, options.weight_decay)]
    head_rate = scaled * options.head_learning_rate_factor
    groups += [{**group, "lr": head_rate} for group in parameter_groups(network.classifier, options.weight_decay)]
    optimizer = torch.optim.SGD(groups, lr=scaled, momentum=MOMENTUM, nesterov=True)
    model, optimizer = accelerator.prepare(network, optimizer)

    def loss_of(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, classes = (part.to(accelerator.device, non_blocking=True) for part in batch)
        return F.cross_entropy(net(pixels).float(), classes)

    fine_tune(
        model,
        loader,
        loss_of,
        optimizer,
        lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)),
        accelerator,
        name=f"fine-tuning at {rate:g}",
    )
    return network


@torch.inference_mode()
def centre_scores(
    network: Any, scores_of: Callable[[Tensor], Tensor], task: ClassificationTask, dataset: Any, indices: Tensor
) -> Tensor:
    """Score the centre crops in eval mode: (images, classes) on the CPU. Every process scores all images.

    Args:
        network: Is put into eval mode.
        scores_of: Gives the network's scores (batch, classes) of images (batch, 3, height, width).
        task: Says how images are read and prepared.
        dataset: The images.
        indices: Which of them.
    """
    network.eval()
    images = ChosenImages(task, dataset, indices, None, CenterTransform(task.settings))
    loader = DataLoader(images, batch_size=task.run.options.batch_size, num_workers=task.run.options.num_workers)
    parts = [scores_of(pixels.to(task.run.device)).float().cpu() for pixels, _ in progress(loader, "scoring")]
    return torch.cat(parts)


def _scores(network: Classifier, task: ClassificationTask, dataset: Any, indices: Tensor) -> Tensor:
    return centre_scores(network, network, task, dataset, indices)
