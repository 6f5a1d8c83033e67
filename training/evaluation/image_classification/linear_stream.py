"""The linear probe on augmented images, the protocol of ImageNet: also on streams, on any number of GPUs.

Each stage and learning rate of the sweep has its own classifier. All are trained together on the same features, so the
backbone runs once per image. The learning rate of each stage is chosen on held-out training images. The classifiers are
not trained again on all images, which would double the cost for 1 % more data; the report's protocol says so.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...data.iterable import length_of, unopened_shards
from ...errors import UserError
from ...loading.progress import progress
from ...models.all_stages import ALL_STAGES, with_all_stages
from ...runs.agreement import all_or_none, said_once
from ..backbone import StageFeatures, padding_notes
from ..features import bad_image_notes, check_readable
from ..options import LinearOptions
from ..splits import is_streaming
from ..task_run import Outcome, TaskRun
from .augmented_rows import AugmentedRows, Batch, batches
from .linear_heads import ParallelHeads, best_rates, make_optimizer, set_cosine
from .task import TOP_FIVE_FROM, ClassificationTask, classification_protocol, open_classification

_GATHERED = 10
"""Reasons of unreadable images that each process tells the others."""


def linear_on_augmented_images(run: TaskRun) -> Outcome:
    """The augmented protocol of `linear`, on all processes of accelerate."""
    accelerator = run.accelerate()
    options, splits, images = run.options, run.splits, length_of(run.splits.fit)
    fraction = min(options.holdout_fraction, options.holdout_images / images) if images else options.holdout_fraction
    local_batch = max(1, options.train_batch_size // accelerator.num_processes)

    def opened() -> tuple[ClassificationTask, int]:
        task = open_classification(run)
        if not task.index.names:
            raise UserError(f"column {task.label_column!r} of a stream must be a ClassLabel, which names the classes")
        if options.standardize and local_batch < 2:
            raise UserError(
                f"train_batch_size {options.train_batch_size} is {local_batch} image for each of "
                f"{accelerator.num_processes} processes; standardize needs two: raise it, or set standardize to false"
            )
        return task, _number_of_steps(options, images, fraction, local_batch * accelerator.num_processes)

    task, steps = all_or_none(opened)
    run.notes += padding_notes(run.model)
    classes = len(task.index.names)
    heads, fitted, bad = _train(task, classes, fraction, local_batch, steps)
    held, also_bad = _score(task, heads, AugmentedRows(task, "fit", part="held", fraction=fraction), classes)
    with said_once():
        if held["seen"].sum() == 0:
            raise UserError(f"split {splits.fit_split} is too small to hold out {fraction:.1%} of it")
    unread = bad + also_bad
    read = readable_images(images, float(held["seen"].sum()), fraction, len(unread))
    unfit = _check_readable(task, read, unread, splits.fit_split)
    accuracies = {name: held[f"right/{name}"].sum(dim=1) / held["seen"].sum() for name in heads.names}
    rates = tuple(options.learning_rates)
    chosen, notes = best_rates(accuracies, rates)
    scored, bad = _score(task, heads, AugmentedRows(task, "score"), classes)
    reasons = [*unfit, *_check_readable(task, int(scored["seen"].sum()), bad, splits.score_split)]
    with said_once():
        if scored["seen"].sum() == 0:
            raise UserError(f"split {splits.score_split} has no readable image")
    scored_classes = scored["seen"].nonzero().flatten().tolist()
    # Of a stream, only the classes of the images that are held out are known.
    fitted_classes = {*held["seen"].nonzero().flatten().tolist(), *scored_classes}
    if not is_streaming(splits.fit):
        fitted_classes = {*task.index.fit_numbers(splits.fit[task.label_column])}
    run.notes += task.index.compare(fitted_classes, scored_classes)
    run.notes += [*notes, *bad_image_notes(len(reasons), reasons)]
    return Outcome(
        "linear",
        {name: _metrics(scored, name, index) for name, index in chosen.items()},
        fitted,
        int(scored["seen"].sum()),
        task.index.names,
        protocol=classification_protocol(
            task,
            classifiers="one per stage and one on all, fitted on the training images that are not held out",
            chosen_learning_rates={name: rates[index] for name, index in chosen.items()},
            steps=steps,
            images_with_repetition=steps * local_batch * accelerator.num_processes,
            global_batch=local_batch * accelerator.num_processes,
            processes=accelerator.num_processes,
            holdout_fraction=fraction,
        ),
    )


def _number_of_steps(options: LinearOptions, images: int | None, fraction: float, batch: int) -> int:
    if options.max_steps is not None:
        return options.max_steps
    if images is None:
        raise UserError("this stream does not know its length: give max_steps")
    return max(1, round(options.epochs * images * (1 - fraction) / batch))


def _train(
    task: ClassificationTask, classes: int, fraction: float, local_batch: int, steps: int
) -> tuple[ParallelHeads, int, list[str]]:
    """Train all classifiers.

    Returns:
        (the classifiers, images that all processes trained on, each counted once, why images cannot be read that this
        process met in the first pass).

    Raises:
        UserError: No image can be read.
    """
    options, accelerator = task.run.options, task.run.accelerator
    channels = dict(zip(task.backbone.stages, task.backbone.channels, strict=True))
    if len(channels) > 1:
        channels[ALL_STAGES] = sum(channels.values())
    batch = local_batch * accelerator.num_processes
    rates = [rate * batch / 256 for rate in options.learning_rates]
    heads = ParallelHeads(channels, classes, dict.fromkeys(channels, rates), batch_norm=options.standardize)
    heads, optimizer = accelerator.prepare(heads, make_optimizer(heads))
    unwrapped = accelerator.unwrap_model(heads)
    rows = AugmentedRows(task, "fit", part="kept", fraction=fraction, train=True)
    loader = iter(batches(rows, local_batch, options.num_workers))
    bad: list[str] = []
    first = all_or_none(lambda: _next_batch(loader, bad, task.run.splits.fit_split))
    images = 0
    heads.train()
    for step in progress(range(steps), "linear classifiers"):
        pixels, labels, new = _next_batch(loader, bad, task.run.splits.fit_split) if step else first
        images += new
        set_cosine(optimizer, step, steps)
        features = _features(task.backbone, pixels.to(accelerator.device, non_blocking=True))
        loss = unwrapped.loss(heads(features), labels.to(accelerator.device))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return unwrapped.eval(), int(accelerator.reduce(torch.tensor(images, device=accelerator.device), "sum")), bad


def _next_batch(loader: Iterator[Batch], bad: list[str], split: str) -> tuple[Tensor, Tensor, int]:
    """Take the next batch that has images: the part of a worker may have none. Reasons of unreadable ones go to `bad`.

    Raises:
        UserError: There is none: no image of this process can be read.
    """
    for pixels, labels, unreadable, new in loader:
        bad += unreadable
        if pixels is not None:
            return pixels, labels, new
    example = f" ({bad[0]})" if bad else ""
    raise UserError(f"split {split} has no readable image to train on{example}")


def readable_images(images: int | None, held: float, fraction: float, unreadable: int) -> int:
    """How many images of a split can be read, to judge how many cannot.

    Args:
        images: Images of the split; None for a stream, whose number is estimated from the part that was held out.
        held: Readable images of that part.
        fraction: Its share of the images, in expectation.
        unreadable: Unreadable images that were met.
    """
    return round(held / fraction) if images is None else max(0, images - unreadable)


def _check_readable(task: ClassificationTask, readable: int, bad: list[str], split: str) -> list[str]:
    """Why images of a split cannot be read, of all processes; the reasons of some may be empty.

    Args:
        task: The task.
        readable: Readable images of all processes.
        bad: Reasons of the unreadable images that this process met.
        split: Name of the split.

    Raises:
        UserError: Too many cannot be read. It is raised in all processes.
    """
    from accelerate.utils import gather_object

    accelerator = task.run.accelerator
    count = int(accelerator.reduce(torch.tensor(len(bad), device=accelerator.device), "sum"))
    examples = [*gather_object(bad[:_GATHERED]), *[""] * count][:count]
    with said_once():
        check_readable(readable, examples, split)
    return examples


@torch.no_grad()
def _features(backbone: StageFeatures, pixels: Tensor) -> dict[str, Tensor]:
    pooled = {name: values.float().mean(dim=(2, 3)) for name, values in backbone(pixels).items()}
    return with_all_stages(pooled, normalise=False)


@torch.no_grad()
def _score(
    task: ClassificationTask, heads: ParallelHeads, rows: AugmentedRows, classes: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Count top-1 and top-5 hits of each feature set, (learning rates, classes) each, over all processes.

    Also returns why images cannot be read that this process met.
    """
    options, accelerator, device = task.run.options, task.run.accelerator, task.run.device
    shape = (len(options.learning_rates), classes)
    totals = {
        f"{kind}/{name}": torch.zeros(shape, device=device) for kind in ("right", "top5") for name in heads.weights
    }
    totals["seen"] = torch.zeros(classes, device=device)
    bad = [str(shard) for shard in unopened_shards(rows.dataset)] if accelerator.is_main_process else []
    for pixels, labels, unreadable, _ in progress(batches(rows, options.batch_size, options.num_workers), rows.name):
        bad += unreadable
        if pixels is None:
            continue
        labels = labels.to(device)
        totals["seen"].index_add_(0, labels, torch.ones(len(labels), device=device))
        for name, scores in heads(_features(task.backbone, pixels.to(device))).items():
            diverged = ~torch.isfinite(scores).all(dim=2).all(dim=0)
            rank = (scores > scores.gather(2, labels[:, None, None].expand(-1, shape[0], 1))).sum(dim=2)
            for kind, least in (("right", 1), ("top5", 5)):
                totals[f"{kind}/{name}"].index_add_(1, labels, (rank < least).T.float())
            totals[f"right/{name}"].masked_fill_(diverged[:, None], torch.nan)
    return {name: accelerator.reduce(values, "sum").cpu() for name, values in totals.items()}, bad


def _metrics(totals: dict[str, Tensor], name: str, rate: int) -> dict[str, float]:
    seen, right = totals["seen"].double(), totals[f"right/{name}"][rate].double()
    metrics = {
        "accuracy": (right.sum() / seen.sum()).item(),
        "mean_class_accuracy": (right[seen > 0] / seen[seen > 0]).mean().item(),
    }
    if len(seen) >= TOP_FIVE_FROM:
        metrics["accuracy_top5"] = (totals[f"top5/{name}"][rate].sum() / seen.sum()).item()
    return metrics
