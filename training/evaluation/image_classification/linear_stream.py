"""Linear classification on augmented images, as the field does it on ImageNet: streaming, on any number of GPUs.

Every stage and every learning rate of the sweep is a classifier of its own, all trained at once on the same features,
so the backbone runs once per image. The learning rate of each stage is chosen on held-out training images. The
classifiers are not trained again on all images, which would double the cost for 1 % more data: the protocol says so.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ...data.content import content
from ...data.iterable import length_of
from ...errors import BadImageError, UserError
from ...models.all_stages import ALL_STAGES, with_all_stages
from ..backbone import StageFeatures
from ..image_transforms import CenterTransform, RandomCropTransform
from ..options import LinearOptions
from ..progress import progress
from ..report import EvaluationResult
from ..splits import is_streaming, undecoded
from .linear_heads import ParallelHeads, accuracy_per_rate, best_rates, make_optimizer, set_cosine
from .task import TOP_FIVE_FROM, ClassificationTask, open_classification, task_result

SHARDS_PER_READER = 8


def linear_on_augmented_images(
    model: Any,
    dataset: Any,
    test_dataset: Any,
    output: Any,
    device: Any,
    seed: int,
    settings: dict[str, Any],
    start: float,
) -> EvaluationResult:
    """The augmented protocol of `linear`; arguments as there, `start` is when it began (`time.monotonic`)."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device is not None and torch.device(device).type == "cpu")
    task = open_classification(model, dataset, test_dataset, LinearOptions, settings, device or accelerator.device)
    options, classes = task.options, len(task.index.names)
    if classes == 0:
        raise UserError(f"column {task.label_column!r} of a stream must be a ClassLabel, which names the classes")
    images = length_of(task.splits.fit)
    fraction = min(options.holdout_fraction, options.holdout_images / images) if images else options.holdout_fraction
    local_batch = max(1, options.train_batch_size // accelerator.num_processes)
    steps = _number_of_steps(options, images, fraction, local_batch * accelerator.num_processes)

    heads, fitted = _train(task, accelerator, classes, fraction, local_batch, steps, seed)
    held = _Rows(task, "fit", accelerator, part="held", fraction=fraction, seed=seed)
    totals = _score(task, accelerator, heads, held, classes)
    if totals["seen"].sum() == 0:
        raise UserError(f"split {task.splits.fit_split} is too small to hold out {fraction:.1%} of it")
    found = {name: totals[f"right/{name}"].sum(dim=1) / totals["seen"].sum() for name in heads.names}
    rates = tuple(options.learning_rates)
    chosen, notes = best_rates(found, rates)
    scored = _score(task, accelerator, heads, _Rows(task, "score", accelerator, seed=seed), classes)
    if scored["seen"].sum() == 0:
        raise UserError(f"split {task.splits.score_split} has no readable image")
    task.notes += notes
    unreadable = int(scored["unreadable"]) + int(totals["unreadable"])
    if unreadable:
        task.notes.append(f"{unreadable} images could not be read and were left out")
    metrics = {name: _metrics(scored, name, index) for name, index in chosen.items()}
    protocol = {
        "classifiers": "one per stage and one on all, fitted on the training images that are not held out",
        "chosen_learning_rates": {name: rates[index] for name, index in chosen.items()},
        "steps": steps,
        "global_batch": local_batch * accelerator.num_processes,
        "processes": accelerator.num_processes,
        "holdout_fraction": fraction,
    }
    counts = {"fit": fitted, "score": int(scored["seen"].sum())}
    result = task_result("linear", task, metrics, seed, start, counts, protocol)
    if output is not None and accelerator.is_main_process:
        result.save(output)
    accelerator.wait_for_everyone()
    return result


def is_held_out(image: Any, fraction: float, seed: int) -> bool:
    """Whether an image is kept from training; depends on its content and the seed only, not on order or process."""
    return zlib.crc32(content(image), seed) < fraction * 2**32


def _number_of_steps(options: LinearOptions, images: int | None, fraction: float, batch: int) -> int:
    if options.max_steps is not None:
        return options.max_steps
    if images is None:
        raise UserError("this stream does not know its length: give max_steps")
    return max(1, round(options.epochs * images * (1 - fraction) / batch))


def _train(
    task: ClassificationTask, accelerator: Any, classes: int, fraction: float, local_batch: int, steps: int, seed: int
) -> tuple[ParallelHeads, int]:
    """Train all classifiers; also how many images (with repetition) they saw, over all processes."""
    options = task.options
    channels = dict(zip(task.backbone.stages, task.backbone.channels, strict=True))
    if len(channels) > 1:
        channels[ALL_STAGES] = sum(channels.values())
    batch = local_batch * accelerator.num_processes
    rates = [rate * batch / 256 for rate in options.learning_rates]
    heads = ParallelHeads(channels, classes, dict.fromkeys(channels, rates), batch_norm=options.standardize)
    heads, optimizer = accelerator.prepare(heads, make_optimizer(heads))
    plain = accelerator.unwrap_model(heads)
    rows = _Rows(task, "fit", accelerator, part="kept", fraction=fraction, seed=seed, train=True)
    loader = iter(
        DataLoader(rows, batch_size=local_batch, num_workers=options.num_workers, collate_fn=_collate, drop_last=True)
    )
    heads.train()
    for step in progress(range(steps), "linear classifiers"):
        batch_of_images = next(loader, None)
        if batch_of_images is None:
            raise UserError(f"split {task.splits.fit_split} has no readable image to train on")
        pixels, labels = batch_of_images
        set_cosine(optimizer, step, steps)
        features = _features(task.backbone, pixels.to(task.device, non_blocking=True))
        loss = plain.loss(heads(features), labels.to(task.device))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return plain.eval(), steps * batch


@torch.no_grad()
def _features(backbone: StageFeatures, pixels: Tensor) -> dict[str, Tensor]:
    pooled = {name: values.float().mean(dim=(2, 3)) for name, values in backbone(pixels).items()}
    return with_all_stages(pooled, normalise=False)


@torch.no_grad()
def _score(
    task: ClassificationTask, accelerator: Any, heads: ParallelHeads, rows: "_Rows", classes: int
) -> dict[str, Tensor]:
    """Right answers of each feature set (learning rates, classes), and in the first five places, over all processes."""
    options = task.options
    shape = (len(options.learning_rates), classes)
    totals = {
        f"{kind}/{name}": torch.zeros(shape, device=task.device) for kind in ("right", "top5") for name in heads.weights
    }
    totals["seen"] = torch.zeros(classes, device=task.device)
    totals["unreadable"] = torch.zeros((), device=task.device)
    loader = DataLoader(rows, batch_size=options.batch_size, num_workers=options.num_workers, collate_fn=_collate)
    for pixels, labels in progress(loader, rows.name):
        labels = labels.to(task.device)
        totals["unreadable"] += (labels < 0).sum()
        readable = labels >= 0
        labels = labels[readable]
        totals["seen"] += labels.bincount(minlength=classes)
        for name, scores in heads(_features(task.backbone, pixels.to(task.device)[readable])).items():
            diverged = torch.isnan(accuracy_per_rate(scores, labels))
            place = (scores > scores.gather(2, labels[:, None, None].expand(-1, shape[0], 1))).sum(dim=2)
            for kind, least in (("right", 1), ("top5", 5)):
                for column, label in enumerate((place < least).T):
                    totals[f"{kind}/{name}"][column] += labels[label].bincount(minlength=classes)
            totals[f"right/{name}"][diverged] = torch.nan
    return {name: accelerator.reduce(values, "sum").cpu() for name, values in totals.items()}


def _metrics(totals: dict[str, Tensor], name: str, rate: int) -> dict[str, float]:
    seen, right = totals["seen"].double(), totals[f"right/{name}"][rate].double()
    metrics = {
        "accuracy": (right.sum() / seen.sum()).item(),
        "mean_class_accuracy": (right[seen > 0] / seen[seen > 0]).mean().item(),
    }
    if len(seen) >= TOP_FIVE_FROM:
        metrics["accuracy_top5"] = (totals[f"top5/{name}"][rate].sum() / seen.sum()).item()
    return metrics


class _Rows(IterableDataset):
    """Images of a split for one process, as (pixels, class number).

    To train: pass after pass, shuffled, cropped at random; the crop depends on the image, the pass and the seed.
    To score: once, in order, the middle crop; an unreadable image comes as class -1.
    """

    def __init__(
        self,
        task: ClassificationTask,
        which: str,
        accelerator: Any,
        *,
        part: str | None = None,
        fraction: float = 0.0,
        seed: int = 0,
        train: bool = False,
    ) -> None:
        options = task.options
        dataset, self.split = (
            (task.splits.fit, task.splits.fit_split) if which == "fit" else (task.splits.score, task.splits.score_split)
        )
        self.name = f"{part or 'all'} of {self.split}"
        self.image, self.label, self.index = task.image_column, task.label_column, task.index
        self.part, self.fraction, self.seed, self.train = part, fraction, seed, train
        self.size = task.settings.size
        self.transform = RandomCropTransform(task.settings) if train else CenterTransform(task.settings)
        self.dataset = self._stream(undecoded(dataset, self.image, self.label), options, accelerator)

    def _stream(self, dataset: Any, options: LinearOptions, accelerator: Any) -> Any:
        from datasets.distributed import split_dataset_by_node

        processes = accelerator.num_processes
        if not is_streaming(dataset):
            shards = min(len(dataset), processes * max(1, options.num_workers) * SHARDS_PER_READER)
            dataset = dataset.to_iterable_dataset(num_shards=shards)
        if self.train:
            dataset = dataset.shuffle(seed=self.seed, buffer_size=options.shuffle_buffer)
        return split_dataset_by_node(dataset, rank=accelerator.process_index, world_size=processes)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        passes = 0
        while True:
            self.dataset.set_epoch(passes)
            used = 0
            for row in self.dataset:
                if self.part and is_held_out(row[self.image], self.fraction, self.seed) != (self.part == "held"):
                    continue
                example = self._example(row, passes)
                if example is not None:
                    used += 1
                    yield example
            passes += 1
            if not self.train or used == 0:
                return

    def _example(self, row: dict[str, Any], passes: int) -> tuple[Tensor, int] | None:
        seed = zlib.crc32(content(row[self.image]), zlib.crc32(f"{self.seed}/{passes}".encode()))
        label = int(self.index.numbers([row[self.label]], self.split)[0])
        try:
            return self.transform(row[self.image], seed), label
        except BadImageError:
            return None if self.train else (torch.zeros(3, self.size, self.size), -1)


def _collate(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([pixels for pixels, _ in examples]), torch.tensor([label for _, label in examples])
