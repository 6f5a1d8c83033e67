"""Detection: Faster R-CNN or Mask R-CNN on the backbone, fine-tuned and scored by COCO's average precision."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...loading.depth import say_if_dark
from ...loading.progress import progress
from ...runs.agreement import all_or_none
from .. import splits as splits_module
from ..backbone import load_image_settings
from ..classes import list_of_names
from ..options import DetectionOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task, training_protocol
from ..tuning import tune_on_images
from .coco_metric import coco_metric
from .data import DetectionImages, ObjectReader, encode_mask
from .model import build_detector

TASK = "detection"


def detection(
    model: Any,
    dataset: Any,
    *,
    test_dataset: Any = None,
    output: Any = None,
    device: Any = None,
    seed: int = 0,
    **settings: Any,
) -> EvaluationResult:
    """Fine-tune a detector on the backbone and score it.

    The data has the layout {image, objects {bbox [x, y, width, height] in pixels, category, area, iscrowd,
    segmentation}}; the last three are optional. Crowd regions are not trained on, and detections in them are not
    errors. Categories without a training box stay in the average, and a note names them.

    Args:
        model: A run's folder, a Hub name or a loaded model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or a single `Dataset`, which needs `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        output: Folder that gets `evaluation/detection-DATASET.json`; None writes no file.
        device: Default: a GPU if there is one, or all that `accelerate launch` gives.
        seed: Of the head's weights, the order and the augmentation.
        **settings: Fields of `DetectionOptions`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
        TrainingStopped: the loss is not finite.
    """
    return run_task(
        DetectionOptions, fit_and_score, Request(model, dataset, test_dataset, output, device, seed, settings)
    )


def fit_and_score(run: TaskRun) -> Outcome:
    """Train and score; the trained network is left in `run.trained`."""
    options, splits = run.options, run.splits
    accelerator = run.accelerate(options.mixed_precision)
    reader, image_column, fit_objects, score_objects, masks, used = all_or_none(lambda: _opened(run))
    features, image_settings = run.load_backbone(), load_image_settings(run.model, value_range=run.options.image_range)
    values = image_settings.value_range
    say_if_dark(splits.name, splits.fit, image_column, values)
    images = DetectionImages(
        splits.fit, fit_objects, image_column, masks=masks, flip=True, value_range=values, indices=used
    )

    with run.seeded():
        detector = build_detector(features, len(reader.names), options, image_settings, masks=masks)
        losses = train_detector(detector, images, options, run.seed, accelerator)
    scored = DetectionImages(splits.score, score_objects, image_column, masks=False, flip=False, value_range=values)
    detector.to(accelerator.device)
    metrics, per_class = _score(detector, scored, reader, options, accelerator, masks=masks)
    run.trained = detector
    protocol = {
        "architecture": "Mask R-CNN" if masks else "Faster R-CNN",
        **training_protocol(run, features, image_settings, losses),
    }
    return Outcome(TASK, metrics, len(used), len(score_objects), reader.names, protocol, per_class)


def _opened(run: TaskRun) -> tuple[ObjectReader, str, list[Any], list[Any], bool, list[int]]:
    """Read both splits: the reader, the column of images, the objects, with masks or not, the images to fit on."""
    options, splits = run.options, run.splits
    reader = ObjectReader(splits.fit, splits.fit_split, splits.score, splits.score_split)
    image_column = splits_module.image_column(splits.fit, options.image_column)
    splits_module.check_column(splits.score, image_column, "image_column")
    fit_objects, score_objects = reader.read_all("fit"), reader.read_all("score")
    masks = _with_masks(options, reader)
    used = [
        index
        for index, entry in enumerate(fit_objects)
        if options.keep_empty or (len(entry) and not entry.iscrowd.all())
    ]
    if not used:
        raise UserError(f"split {splits.fit_split} has no image with a box")
    if all(entry.iscrowd.all() for entry in score_objects):
        raise UserError(
            f"split {splits.score_split} has no box to score (crowds do not count); score another with split"
        )
    run.notes += _notes(reader, fit_objects, score_objects, len(fit_objects) - len(used))
    return reader, image_column, fit_objects, score_objects, masks, used


def train_detector(
    detector: Any, images: DetectionImages, options: DetectionOptions, seed: int, accelerator: Any
) -> list[float]:
    """Fine-tune a detector in place and return the loss of every step."""

    def loss_of(network: Any, batch: Any) -> Tensor:
        inputs, targets = on_device(batch, accelerator.device)
        return sum(network(inputs, targets).values())

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
        return warm * 0.1 ** sum(step >= share * options.steps for share in options.milestones)

    return tune_on_images(
        detector,
        images,
        options,
        seed,
        accelerator,
        loss_of=loss_of,
        factor=factor,
        collate=collate,
        name=TASK,
        measure=detector.backbone.body.measures_statistics,
    )


def collate(examples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Make a batch of images of different sizes: a list of images and a list of targets."""
    return [image for image, _ in examples], [target for _, target in examples]


def on_device(batch: tuple[list[Tensor], list[dict[str, Tensor]]], device: Any) -> tuple[list, list]:
    """Move a batch to a device."""
    images, targets = batch
    return (
        [image.to(device, non_blocking=True) for image in images],
        [{name: value.to(device, non_blocking=True) for name, value in target.items()} for target in targets],
    )


@torch.inference_mode()
def predict(
    detector: Any, images: DetectionImages, options: DetectionOptions, accelerator: Any, *, masks: bool
) -> list:
    """Predict this process's share of the images.

    Returns:
        (index, prediction, height, width) of each image; predictions in the form of `average_precision`.
    """
    from faster_coco_eval import mask as mask_codes

    detector.eval()
    detector.transform.min_size = (options.test_short_side or options.short_sides[-1],)
    predictions = []
    mine = range(accelerator.process_index, len(images), accelerator.num_processes)
    for first in progress(range(0, len(mine), options.batch_size), "detection of test images"):
        chosen = mine[first : first + options.batch_size]
        pixels = [images[index][0] for index in chosen]
        outputs = detector([image.to(accelerator.device) for image in pixels])
        for index, image, output in zip(chosen, pixels, outputs, strict=True):
            boxes = output["boxes"].cpu()
            boxes[:, 2:] -= boxes[:, :2]
            prediction = {
                "boxes": boxes.numpy(),
                "scores": output["scores"].cpu().numpy(),
                "labels": output["labels"].cpu().numpy() - 1,
            }
            if masks:
                binary = (output["masks"][:, 0] > 0.5).byte().cpu().numpy()
                prediction["masks"] = [mask_codes.encode(np.asfortranarray(entry)) for entry in binary]
            predictions.append((index, prediction, *image.shape[1:]))
    return predictions


def _score(
    detector: Any,
    images: DetectionImages,
    reader: ObjectReader,
    options: DetectionOptions,
    accelerator: Any,
    *,
    masks: bool,
) -> tuple[dict[str, dict[str, float]], dict[str, list[float | None]]]:
    """Compute the metrics of boxes and, with `masks`, of masks; every process returns the same."""
    from accelerate.utils import gather_object

    predictions = predict(detector, images, options, accelerator, masks=masks)
    predictions = sorted(gather_object(predictions), key=lambda entry: entry[0])
    metrics, per_class = {}, {}
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        if name == "mask" and not masks:
            continue
        metric = coco_metric(len(reader.names), kind)
        for index, prediction, height, width in predictions:
            objects = images.objects[index]
            reference = {**vars(objects), "height": height, "width": width}
            if name == "mask":
                reference["masks"] = [encode_mask(entry, height, width) for entry in objects.segmentation]
            metric.add(prediction=prediction, reference=reference)
        values = metric.compute()
        per_class[f"{name}_AP"] = values.pop("per_class")
        metrics[name] = values
    return metrics, per_class


def _with_masks(options: DetectionOptions, reader: ObjectReader) -> bool:
    if options.masks == "yes" and not reader.has_masks:
        raise UserError(
            "masks: yes needs a segmentation field (polygons or run-length codes) in the objects of both splits"
        )
    return reader.has_masks and options.masks != "no"


def _notes(reader: ObjectReader, fit: list, score: list, left_out: int) -> list[str]:
    """What a reader of the metrics must know about the data."""
    notes = []
    if left_out:
        notes.append(f"{left_out} training images without a box were left out")
    for side, count in reader.without_area.items():
        if count:
            notes.append(f"{count} boxes of split {reader.splits[side]} have no area and were left out")
    seen = {number for entry in fit for number in entry.labels.tolist()}
    scored = {number for entry in score for number in entry.labels.tolist()}
    unseen = [reader.names[number] for number in sorted(scored - seen)]
    if unseen:
        shown = list_of_names(unseen)
        notes.append(f"{len(unseen)} categories of the scored split have no training box: {shown}")
    return [*notes, *reader.index.compare(seen | scored, scored)]
