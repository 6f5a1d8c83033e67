"""The linear probe on augmented images, the protocol of ImageNet: also on streams, on any number of GPUs.

Each stage and learning rate of the sweep has its own classifier. All are trained together on the same features, so the
backbone runs once per image. The learning rate of each stage is chosen on held-out training images. The classifiers are
not trained again on all images, which would double the cost for 1 % more data; the report's protocol says so.
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
from ...loading.progress import progress
from ...models.all_stages import ALL_STAGES, with_all_stages
from ..backbone import StageFeatures
from ..features import bad_image_notes
from ..image_transforms import CenterTransform, RandomCropTransform
from ..options import LinearOptions
from ..splits import is_streaming, undecoded
from ..task_run import Outcome, TaskRun
from .linear_heads import ParallelHeads, best_rates, make_optimizer, set_cosine
from .task import TOP_FIVE_FROM, ClassificationTask, classification_protocol, open_classification

SHARDS_PER_READER = 8


def linear_on_augmented_images(run: TaskRun) -> Outcome:
    """The augmented protocol of `linear`, on all processes of accelerate."""
    accelerator = run.accelerate()
    task = open_classification(run)
    options, splits, classes = run.options, run.splits, len(task.index.names)
    if classes == 0:
        raise UserError(f"column {task.label_column!r} of a stream must be a ClassLabel, which names the classes")
    images = length_of(splits.fit)
    fraction = min(options.holdout_fraction, options.holdout_images / images) if images else options.holdout_fraction
    local_batch = max(1, options.train_batch_size // accelerator.num_processes)
    steps = _number_of_steps(options, images, fraction, local_batch * accelerator.num_processes)

    heads, fitted = _train(task, classes, fraction, local_batch, steps)
    held = _score(task, heads, _Rows(task, "fit", part="held", fraction=fraction), classes)
    if held["seen"].sum() == 0:
        raise UserError(f"split {splits.fit_split} is too small to hold out {fraction:.1%} of it")
    accuracies = {name: held[f"right/{name}"].sum(dim=1) / held["seen"].sum() for name in heads.names}
    rates = tuple(options.learning_rates)
    chosen, notes = best_rates(accuracies, rates)
    scored = _score(task, heads, _Rows(task, "score"), classes)
    if scored["seen"].sum() == 0:
        raise UserError(f"split {splits.score_split} has no readable image")
    scored_classes = scored["seen"].nonzero().flatten().tolist()
    # Of a stream, only the classes of the images that are held out are known.
    fitted_classes = {*held["seen"].nonzero().flatten().tolist(), *scored_classes}
    if not is_streaming(splits.fit):
        fitted_classes = {*task.index.fit_numbers(splits.fit[task.label_column])}
    run.notes += task.index.compare(fitted_classes, scored_classes)
    run.notes += [*notes, *bad_image_notes(int(scored["unreadable"]) + int(held["unreadable"]))]
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
            global_batch=local_batch * accelerator.num_processes,
            processes=accelerator.num_processes,
            holdout_fraction=fraction,
        ),
    )


def is_held_out(image: Any, fraction: float, seed: int) -> bool:
    """Whether an image is held out of training. It depends on the image's content and the seed alone."""
    return zlib.crc32(content(image), seed) < fraction * 2**32


def _number_of_steps(options: LinearOptions, images: int | None, fraction: float, batch: int) -> int:
    if options.max_steps is not None:
        return options.max_steps
    if images is None:
        raise UserError("this stream does not know its length: give max_steps")
    return max(1, round(options.epochs * images * (1 - fraction) / batch))


def _train(
    task: ClassificationTask, classes: int, fraction: float, local_batch: int, steps: int
) -> tuple[ParallelHeads, int]:
    """Train all classifiers. Also returns how many images, with repetition, all processes trained on together."""
    options, accelerator = task.run.options, task.run.accelerator
    channels = dict(zip(task.backbone.stages, task.backbone.channels, strict=True))
    if len(channels) > 1:
        channels[ALL_STAGES] = sum(channels.values())
    batch = local_batch * accelerator.num_processes
    rates = [rate * batch / 256 for rate in options.learning_rates]
    heads = ParallelHeads(channels, classes, dict.fromkeys(channels, rates), batch_norm=options.standardize)
    heads, optimizer = accelerator.prepare(heads, make_optimizer(heads))
    unwrapped = accelerator.unwrap_model(heads)
    rows = _Rows(task, "fit", part="kept", fraction=fraction, train=True)
    loader = iter(
        DataLoader(rows, batch_size=local_batch, num_workers=options.num_workers, collate_fn=_collate, drop_last=True)
    )
    heads.train()
    for step in progress(range(steps), "linear classifiers"):
        batch_of_images = next(loader, None)
        if batch_of_images is None:
            raise UserError(f"split {task.run.splits.fit_split} has no readable image to train on")
        pixels, labels = batch_of_images
        set_cosine(optimizer, step, steps)
        features = _features(task.backbone, pixels.to(accelerator.device, non_blocking=True))
        loss = unwrapped.loss(heads(features), labels.to(accelerator.device))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return unwrapped.eval(), steps * batch


@torch.no_grad()
def _features(backbone: StageFeatures, pixels: Tensor) -> dict[str, Tensor]:
    pooled = {name: values.float().mean(dim=(2, 3)) for name, values in backbone(pixels).items()}
    return with_all_stages(pooled, normalise=False)


@torch.no_grad()
def _score(task: ClassificationTask, heads: ParallelHeads, rows: "_Rows", classes: int) -> dict[str, Tensor]:
    """Count top-1 and top-5 hits of each feature set, (learning rates, classes) each, over all processes."""
    options, accelerator, device = task.run.options, task.run.accelerator, task.run.device
    shape = (len(options.learning_rates), classes)
    totals = {
        f"{kind}/{name}": torch.zeros(shape, device=device) for kind in ("right", "top5") for name in heads.weights
    }
    totals["seen"] = torch.zeros(classes, device=device)
    totals["unreadable"] = torch.zeros((), device=device)
    loader = DataLoader(rows, batch_size=options.batch_size, num_workers=options.num_workers, collate_fn=_collate)
    for pixels, labels in progress(loader, rows.name):
        labels = labels.to(device)
        readable = labels >= 0  # an unreadable image counts as no image; choosing the others would wait for the device
        counted = readable.float()
        labels = labels.clamp(min=0)
        totals["unreadable"] += (~readable).sum()
        totals["seen"].index_add_(0, labels, counted)
        for name, scores in heads(_features(task.backbone, pixels.to(device))).items():
            diverged = ~torch.isfinite(scores).all(dim=2).all(dim=0)
            rank = (scores > scores.gather(2, labels[:, None, None].expand(-1, shape[0], 1))).sum(dim=2)
            for kind, least in (("right", 1), ("top5", 5)):
                totals[f"{kind}/{name}"].index_add_(1, labels, (rank < least).T * counted)
            totals[f"right/{name}"].masked_fill_(diverged[:, None], torch.nan)
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
    """The images of a split for one process, as (pixels, class number).

    For training, they are repeated without end, shuffled, and cropped at random; the crop depends on the image, the
    pass and the seed. For scoring, each centre crop comes once, in order; an unreadable image has class -1.
    """

    def __init__(
        self,
        task: ClassificationTask,
        which: str,
        *,
        part: str | None = None,
        fraction: float = 0.0,
        train: bool = False,
    ) -> None:
        run, splits = task.run, task.run.splits
        dataset, self.split = (splits.fit, splits.fit_split) if which == "fit" else (splits.score, splits.score_split)
        self.name = f"{part or 'all'} of {self.split}"
        self.image, self.label = task.image_column, task.label_column
        self.numbers = task.index.fit_numbers if which == "fit" else task.index.score_numbers
        self.part, self.fraction, self.seed, self.train = part, fraction, run.seed, train
        self.size = task.settings.size
        self.transform = RandomCropTransform(task.settings) if train else CenterTransform(task.settings)
        self.dataset = self._stream(undecoded(dataset, self.image, self.label), run.options, run.accelerator)

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
        label = self.numbers([row[self.label]])[0]
        try:
            return self.transform(row[self.image], seed), label
        except BadImageError:
            return None if self.train else (torch.zeros(3, self.size, self.size), -1)


def _collate(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([pixels for pixels, _ in examples]), torch.tensor([label for _, label in examples])
