"""The linear probe: the task, and its protocol on features that are computed once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...loading.progress import progress
from ...models.all_stages import with_all_stages
from ..options import LinearOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task
from .linear_heads import ParallelHeads, accuracy_per_rate, best_rates, make_optimizer, set_cosine
from .task import classification_metrics, classification_protocol, extract_classification, stratified_split


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
    options = run.options
    if options.augment:
        from .linear_stream import linear_on_augmented_images

        return linear_on_augmented_images(run)
    data = extract_classification(run)
    fit, fit_labels = with_all_stages(data.fit.features, normalise=False), data.fit_labels
    if options.label_fraction is not None:
        used, _ = stratified_split(fit_labels, options.label_fraction, run.seed, at_least=1)
        fit, fit_labels = {name: values[used] for name, values in fit.items()}, fit_labels[used]
        run.notes.append(f"{len(used)} of {len(data.fit_labels)} labels were used")
    score = with_all_stages(data.score.features, normalise=False)
    classes = data.task.index.names
    probe = fit_probe(fit, fit_labels, len(classes), options, run.seed, run.device)
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

    def scores(self, features: dict[str, Tensor], device: Any = "cpu") -> dict[str, Tensor]:
        """Score features: feature name to (images, classes) on the CPU."""
        scores = _scores(self.heads, self.shift, self.scale, features, device)
        return {name: values[:, 0] for name, values in scores.items()}


def fit_probe(
    features: dict[str, Tensor],
    labels: Tensor,
    num_classes: int,
    options: LinearOptions,
    seed: int,
    device: Any = "cpu",
) -> Probe:
    """Choose the learning rate of each feature set on held-out images, then fit on all images.

    Args:
        features: Name to float32 (images, channels), on the CPU.
        labels: int64 (images,).
        num_classes: Number of classes.
        options: Of the task.
        seed: Of the held-out part and of the order; the same seed gives the same classifiers.
        device: Where the classifiers are trained.
    """
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
        part = {name: values[kept] for name, values in features.items()}
        sweep = dict.fromkeys(features, rates)
        heads, shift, scale = _fit(part, labels[kept], num_classes, sweep, options, seed, device)
        tested = {name: values[held] for name, values in features.items()}
        measured = {
            name: accuracy_per_rate(scores, labels[held]) / len(held)
            for name, scores in _scores(heads, shift, scale, tested, device).items()
        }
        chosen, notes = best_rates(measured, rates)
        accuracies = {name: values.tolist() for name, values in measured.items()}
    final = {name: (rates[index],) for name, index in chosen.items()}
    heads, shift, scale = _fit(features, labels, num_classes, final, options, seed, device)
    return Probe(heads, shift, scale, {name: rate[0] for name, rate in final.items()}, accuracies, notes)


def _fit(
    features: dict[str, Tensor],
    labels: Tensor,
    num_classes: int,
    rates: Mapping[str, Sequence[float]],
    options: LinearOptions,
    seed: int,
    device: Any,
) -> tuple[ParallelHeads, dict[str, Tensor], dict[str, Tensor]]:
    """Train classifiers with every learning rate of each feature set; return them, their shift and their scale."""
    shift, scale = {}, {}
    for name, values in features.items():
        shift[name], scale[name] = _standardisation(values) if options.standardize else (torch.zeros(1), torch.ones(1))
    inputs = {name: ((values - shift[name]) * scale[name]).to(device) for name, values in features.items()}
    batch = min(options.train_batch_size, len(labels))
    scaled = {name: [rate * batch / 256 for rate in values] for name, values in rates.items()}
    heads = ParallelHeads({name: values.shape[1] for name, values in features.items()}, num_classes, scaled).to(device)
    optimizer = make_optimizer(heads)
    labels = labels.to(device)
    generator = torch.Generator().manual_seed(seed)
    steps_per_pass = math.ceil(len(labels) / batch)
    step, steps = 0, options.epochs * steps_per_pass
    for _ in progress(range(options.epochs), "linear classifiers"):
        order = torch.randperm(len(labels), generator=generator).to(device)
        for chosen in order.split(batch):
            set_cosine(optimizer, step, steps)
            scores = heads({name: values[chosen] for name, values in inputs.items()})
            heads.loss(scores, labels[chosen]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
    return heads.eval(), shift, scale


@torch.no_grad()
def _scores(
    heads: ParallelHeads, shift: dict[str, Tensor], scale: dict[str, Tensor], features: dict[str, Tensor], device: Any
) -> dict[str, Tensor]:
    """Feature name to (images, learning rates, classes) on the CPU."""
    prepared = {name: ((values - shift[name]) * scale[name]).to(device) for name, values in features.items()}
    return {name: values.cpu() for name, values in heads(prepared).items()}


def _standardisation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the shift and scale that give features mean 0 and standard deviation 1 / sqrt(channels).

    A feature vector then has length about 1, so one sweep of learning rates fits stages of any width. A linear
    classifier with bias can undo the change: it affects how fast SGD learns, not what can be learned. Constant features
    become 0.
    """
    deviation, mean = torch.std_mean(values.double(), dim=0, correction=0)
    varies = deviation > 1e-6 * mean.abs().clamp_min(1e-20)
    scale = torch.where(varies, 1 / deviation.clamp_min(1e-30), 0.0) / math.sqrt(values.shape[1])
    return mean.float(), scale.float()
