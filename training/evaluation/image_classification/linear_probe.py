"""The linear probe: the task, and its protocol on features that are computed once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...loading.progress import progress
from ...models.feature_rows import BLOCK_VALUES, FeatureRows, feature_sets
from ..options import LinearOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task
from .linear_heads import ParallelHeads, accuracy_per_rate, best_rates, make_optimizer, set_cosine
from .task import (
    ClassificationData,
    classification_metrics,
    classification_protocol,
    on_features,
    stratified_split,
)


def linear(
    model: Any,
    dataset: Any,
    *,
    test_dataset: Any = None,
    output: Any = None,
    device: Any = None,
    seed: int = 0,
    **settings: Any,
) -> EvaluationResult:
    """Train a linear classifier on each frozen stage, and one on all stages together, and score the test images.

    The learning rate is chosen on held-out training images, never on the test images; then the classifiers are trained
    again on all training images. Features are the average-pooled stages of the online network in eval mode, computed
    once from centre crops. With `augment`, they are computed anew in every pass, from random crops and flips
    (`linear_stream`).

    Args:
        model: A run's folder, a Hub name or a loaded model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or a single `Dataset`, which needs `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        output: Folder that gets `evaluation/linear-DATASET.json`; None writes no file.
        device: Default: a GPU if there is one.
        seed: Of the order of the images and of what is held out.
        **settings: Fields of `LinearOptions`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
    """
    return run_task(LinearOptions, _linear, Request(model, dataset, test_dataset, output, device, seed, settings))


def _linear(run: TaskRun) -> Outcome:
    if run.options.augment:
        from .linear_stream import linear_on_augmented_images

        return linear_on_augmented_images(run)
    return on_features(run, lambda data: _probe(run, data))


def _probe(run: TaskRun, data: ClassificationData) -> Outcome:
    options = run.options
    fit, fit_labels = data.fit.features, data.fit_labels
    if options.label_fraction is not None:
        used, _ = stratified_split(fit_labels, options.label_fraction, run.seed, at_least=1)
        fit, fit_labels = {name: values[used] for name, values in fit.items()}, fit_labels[used]
        run.notes.append(f"{len(used)} of {len(data.fit_labels)} labels were used")
    near = near_the_device(fit, run.device)
    score = feature_sets(data.score.features, normalise=False)
    classes = data.task.index.names
    probe = fit_probe(feature_sets(near, normalise=False), fit_labels, len(classes), options, run.seed, run.device)
    metrics = {
        name: classification_metrics(votes, data.score_labels)
        for name, votes in probe.scores(score, run.device).items()
    }
    run.notes.extend(probe.notes)
    return Outcome(
        "linear" if options.label_fraction is None else f"linear_{options.label_fraction * 100:g}pct",
        metrics,
        len(fit_labels),
        len(data.score_labels),
        classes,
        protocol=classification_protocol(
            data.task,
            classifiers="one per stage and one on all, refit on every training image",
            chosen_learning_rates=probe.rates,
            holdout_accuracy=probe.holdout_accuracy,
        ),
    )


@dataclass
class Probe:
    """Fitted linear classifiers.

    Attributes:
        heads: One classifier per feature set.
        shift: Feature name to what is subtracted from the features first.
        scale: Feature name to what they are multiplied by then.
        rates: Feature name to the chosen learning rate.
        holdout_accuracy: Feature name to the accuracy of each learning rate on the held-out images.
        notes: Remarks for the report.
    """

    heads: ParallelHeads
    shift: dict[str, Tensor]
    scale: dict[str, Tensor]
    rates: dict[str, float]
    holdout_accuracy: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def scores(self, features: Mapping[str, Tensor | FeatureRows], device: Any = "cpu") -> dict[str, Tensor]:
        """Score features: feature name to (images, classes) on the CPU."""
        rows = _as_rows(features)
        parts: dict[str, list[Tensor]] = {name: [] for name in rows}
        for block in _blocks(rows, None, device):
            for name, scores in _scores(self.heads, self.shift, self.scale, block).items():
                parts[name].append(scores[:, 0].cpu())
        return {name: torch.cat(scores) for name, scores in parts.items()}


def fit_probe(
    features: Mapping[str, Tensor | FeatureRows],
    labels: Tensor,
    num_classes: int,
    options: LinearOptions,
    seed: int,
    device: Any = "cpu",
) -> Probe:
    """Choose the learning rate of each feature set on held-out images, then fit on all images.

    Args:
        features: Name to float32 (images, channels), or rows that are not normalised. Only batches are moved and
            standardised, so nothing is copied whole.
        labels: int64 (images,).
        num_classes: Number of classes.
        options: Of the task.
        seed: Of the held-out part and of the order; the same seed gives the same classifiers.
        device: Where the classifiers are trained.
    """
    rows = _as_rows(features)
    fraction = min(options.holdout_fraction, options.holdout_images / len(labels))
    held, kept = stratified_split(labels, fraction, seed, at_least=0)
    rates, notes = tuple(options.learning_rates), []
    accuracies: dict[str, list[float]] = {}
    if len(rates) == 1:
        chosen = dict.fromkeys(features, 0)
    elif len(held) == 0:
        middle = sorted(range(len(rates)), key=lambda index: rates[index])[len(rates) // 2]
        chosen = dict.fromkeys(features, middle)
        notes.append(f"too few images to hold some out: learning rate {rates[middle]:g} was taken without a choice")
    else:
        sweep = dict.fromkeys(features, rates)
        heads, shift, scale = _fit(rows, kept, labels, num_classes, sweep, options, seed, device)
        measured = _accuracies(heads, shift, scale, rows, held, labels, device)
        chosen, notes = best_rates(measured, rates)
        accuracies = {name: values.tolist() for name, values in measured.items()}
    final = {name: (rates[index],) for name, index in chosen.items()}
    heads, shift, scale = _fit(rows, None, labels, num_classes, final, options, seed, device)
    return Probe(heads, shift, scale, {name: rate[0] for name, rate in final.items()}, accuracies, notes)


def near_the_device(features: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The features in the GPU's memory if they take at most a quarter of what is free there, else where they are."""
    if device.type != "cuda":
        return features
    size = sum(values.numel() * values.element_size() for values in features.values())
    free, _ = torch.cuda.mem_get_info(device)
    return {name: values.to(device) for name, values in features.items()} if size <= free / 4 else features


def _as_rows(features: Mapping[str, Tensor | FeatureRows]) -> dict[str, FeatureRows]:
    return {
        name: FeatureRows([values], normalise=False) if isinstance(values, Tensor) else values
        for name, values in features.items()
    }


def _blocks(rows: dict[str, FeatureRows], chosen: Tensor | None, device: Any) -> Iterator[dict[str, Tensor]]:
    """All feature sets of all images, or of the chosen ones, a block of images at a time."""
    count = len(next(iter(rows.values()))) if chosen is None else len(chosen)
    step = max(1, BLOCK_VALUES // sum(values.width for values in rows.values()))
    for first in range(0, count, step):
        part = slice(first, first + step)
        yield {name: values.block(part if chosen is None else chosen[part], device) for name, values in rows.items()}


def _fit(
    features: dict[str, FeatureRows],
    used: Tensor | None,
    labels: Tensor,
    num_classes: int,
    rates: Mapping[str, Sequence[float]],
    options: LinearOptions,
    seed: int,
    device: Any,
) -> tuple[ParallelHeads, dict[str, Tensor], dict[str, Tensor]]:
    """Train classifiers with every learning rate of each feature set; return them, their shift and their scale.

    `used` are the images to train on, as indices; None takes all.
    """
    shift, scale = {}, {}
    for name, rows in features.items():
        found = _standardisation(rows, used) if options.standardize else (torch.zeros(1), torch.ones(1))
        shift[name], scale[name] = (value.to(device) for value in found)
    count = len(labels) if used is None else len(used)
    batch = min(options.train_batch_size, count)
    scaled = {name: [rate * batch / 256 for rate in values] for name, values in rates.items()}
    heads = ParallelHeads({name: rows.width for name, rows in features.items()}, num_classes, scaled).to(device)
    optimizer = make_optimizer(heads)
    generator = torch.Generator().manual_seed(seed)
    steps_per_pass = math.ceil(count / batch)
    step, steps = 0, options.epochs * steps_per_pass
    for _ in progress(range(options.epochs), "linear classifiers"):
        order = torch.randperm(count, generator=generator)
        order = order if used is None else used[order]
        for chosen in order.split(batch):
            set_cosine(optimizer, step, steps)
            inputs = {name: rows.block(chosen, device) for name, rows in features.items()}
            scores = heads(_standardised(inputs, shift, scale))
            heads.loss(scores, labels[chosen].to(device)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
    return heads.eval(), shift, scale


def _standardised(values: dict[str, Tensor], shift: dict[str, Tensor], scale: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (part - shift[name]) * scale[name] for name, part in values.items()}


@torch.no_grad()
def _scores(
    heads: ParallelHeads, shift: dict[str, Tensor], scale: dict[str, Tensor], features: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Feature name to (images, learning rates, classes)."""
    return heads(_standardised(features, shift, scale))


def _accuracies(
    heads: ParallelHeads,
    shift: dict[str, Tensor],
    scale: dict[str, Tensor],
    features: dict[str, FeatureRows],
    held: Tensor,
    labels: Tensor,
    device: Any,
) -> dict[str, Tensor]:
    """Feature name to the share of the held-out images that each learning rate classifies correctly."""
    right: dict[str, Tensor] = {}
    first = 0
    for block in _blocks(features, held, device):
        for name, scores in _scores(heads, shift, scale, block).items():
            expected = labels[held[first : first + len(scores)]].to(device)
            right[name] = right.get(name, 0) + accuracy_per_rate(scores, expected)
        first += len(next(iter(block.values())))
    return {name: values.cpu() / len(held) for name, values in right.items()}


def _standardisation(rows: FeatureRows, used: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the shift and scale that give features mean 0 and standard deviation 1 / sqrt(channels).

    A feature vector then has length about 1, so one sweep of learning rates fits stages of any width. A linear
    classifier with bias can undo the change: it affects how fast SGD learns, not what can be learned. Constant features
    become 0.
    """
    count = len(rows) if used is None else len(used)
    total = torch.zeros(rows.width, dtype=torch.float64)
    for block in rows.blocks(used, "cpu"):
        total += block.double().sum(dim=0)
    mean = total / count
    squares = torch.zeros_like(total)
    for block in rows.blocks(used, "cpu"):
        squares += (block.double() - mean).square_().sum(dim=0)
    deviation = (squares / count).sqrt()
    varies = deviation > 1e-6 * mean.abs().clamp_min(1e-20)
    scale = torch.where(varies, 1 / deviation.clamp_min(1e-30), 0.0) / math.sqrt(rows.width)
    return mean.float(), scale.float()
