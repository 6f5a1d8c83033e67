"""Segmentation: a head on the backbone, trained with it or alone, scored by mean intersection over union."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ...loading.depth import say_if_dark
from ...loading.progress import progress
from ...runs.agreement import all_or_none
from .. import splits as splits_module
from ..backbone import ImageSettings, load_image_settings
from ..classes import list_of_names
from ..image_transforms import resize, size_with_shorter_side, to_tensor
from ..options import SegmentationOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task, training_protocol
from ..tuning import tune_on_images
from .data import LabelledImages, TrainingCrops, label_map_column
from .mean_iou import mean_iou_metric, scores_of
from .model import SegmentationNetwork, segmentation_loss

TASK = "segmentation"


def segmentation(
    model: Any,
    dataset: Any,
    *,
    test_dataset: Any = None,
    output: Any = None,
    device: Any = None,
    seed: int = 0,
    **settings: Any,
) -> EvaluationResult:
    """Train a segmentation head on the backbone and score it on whole images, at the size of their label maps.

    The data has the layout {image, label}; the label is an image of class numbers (mode L or P, 255 ignored). The
    result also holds the score of a constant prediction, the most frequent training class ("constant").

    Args:
        model: A run's folder, a Hub name or a loaded model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or a single `Dataset`, which needs `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        output: Folder that gets `evaluation/segmentation-DATASET.json`; None writes no file.
        device: Default: a GPU if there is one, or all that `accelerate launch` gives.
        seed: Of the head's weights, the order and the augmentation.
        **settings: Fields of `SegmentationOptions`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
        TrainingStopped: the loss is not finite.
    """
    request = Request(model, dataset, test_dataset, output, device, seed, settings)
    return run_task(SegmentationOptions, fit_and_score, request)


def fit_and_score(run: TaskRun) -> Outcome:
    """Train and score; the trained network is left in `run.trained`."""
    options, splits = run.options, run.splits
    accelerator = run.accelerate(options.mixed_precision)
    fit, score, num_classes, seen, present = all_or_none(lambda: _opened(run))
    features, image_settings = run.load_backbone(), load_image_settings(run.model, value_range=run.options.image_range)
    fit.value_range = score.value_range = image_settings.value_range
    say_if_dark(splits.name, splits.fit, fit.image_column, image_settings.value_range)

    with run.seeded():
        network = SegmentationNetwork(features, num_classes, options)
        losses = train_network(network, TrainingCrops(fit, options, image_settings), options, run.seed, accelerator)
    scores = _score(network.to(accelerator.device), score, num_classes, options, image_settings, accelerator)
    run.trained = network
    per_class = {"iou": scores.pop("per_class")}
    constant = np.zeros((num_classes, num_classes), np.int64)
    constant[:, seen.argmax()] = present
    constant_scores = scores_of(constant)
    constant_scores.pop("per_class")
    protocol = {"num_classes": num_classes, **training_protocol(run, features, image_settings, losses)}
    metrics = {options.head: scores, "constant": constant_scores}
    classes = [str(number) for number in range(num_classes)]
    return Outcome(TASK, metrics, len(fit), len(score), classes, protocol, per_class)


def _opened(run: TaskRun) -> tuple[LabelledImages, LabelledImages, int, np.ndarray, np.ndarray]:
    """Read the label maps: both splits, the number of classes, and the pixels of each class in both."""
    options, splits = run.options, run.splits
    image_column = splits_module.image_column(splits.fit, options.image_column)
    label_column = label_map_column(splits.fit, image_column, options.label_column, splits.fit_split)
    splits_module.check_column(splits.score, image_column, "image_column")
    label_map_column(splits.score, image_column, label_column, splits.score_split)
    fit = LabelledImages(splits.fit, image_column, label_column, splits.fit_split)
    score = LabelledImages(splits.score, image_column, label_column, splits.score_split)
    seen = fit.histogram(options.ignore_index, options.num_classes)
    num_classes = options.num_classes or len(seen)
    if num_classes < 2 or np.count_nonzero(seen) < 2:
        raise UserError(f"split {splits.fit_split} has one class only")
    present = score.histogram(options.ignore_index, num_classes)
    seen, present = (np.pad(counts, (0, num_classes - len(counts))) for counts in (seen, present))
    run.notes += _notes(seen, present, splits)
    turned = fit.count_turned() + score.count_turned()
    if turned:
        run.notes.append(f"{turned} label maps were turned as the EXIF orientation turns their images")
    if options.num_classes is None and (seen == 0).any():
        numbers = [str(number) for number in np.flatnonzero(seen)]
        run.notes.append(
            f"only {len(numbers)} of the class numbers 0 to {num_classes - 1} occur in split {splits.fit_split}: "
            f"{list_of_names(numbers)}"
        )
    return fit, score, num_classes, seen, present


def train_network(
    network: SegmentationNetwork, crops: TrainingCrops, options: SegmentationOptions, seed: int, accelerator: Any
) -> list[float]:
    """Train a segmentation network in place and return the loss of every step."""

    def loss_of(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = (part.to(accelerator.device, non_blocking=True) for part in batch)
        return segmentation_loss(net(pixels), labels, options.ignore_index)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, options.warmup_steps)) * (1 - step / options.steps) ** options.power

    collate = torch.utils.data.default_collate
    return tune_on_images(
        network, crops, options, seed, accelerator, loss_of=loss_of, factor=factor, collate=collate, name=TASK
    )


@torch.inference_mode()
def predict(
    network: SegmentationNetwork, image: np.ndarray, options: SegmentationOptions, settings: ImageSettings, device: Any
) -> np.ndarray:
    """Predict class numbers, int64 (H, W), of a whole image, uint8 (H, W, 3), with a network in eval mode."""
    height, width = image.shape[:2]
    if options.resize_side:
        image = resize(image, *size_with_shorter_side(height, width, options.resize_side))
    scores, _ = network(to_tensor(image, settings)[None].to(device))
    scores = F.interpolate(scores.float(), size=(height, width), mode="bilinear", align_corners=False)
    return scores.argmax(dim=1)[0].cpu().numpy()


def _score(
    network: SegmentationNetwork,
    images: LabelledImages,
    num_classes: int,
    options: SegmentationOptions,
    settings: ImageSettings,
    accelerator: Any,
) -> dict[str, Any]:
    """Score all images; each process predicts its share, and every process returns the same scores."""
    network.eval()
    metric = mean_iou_metric(num_classes, options.ignore_index)
    mine = range(accelerator.process_index, len(images), accelerator.num_processes)
    for index in progress(mine, "segmentation of test images"):
        image, labels = images.read(index)
        prediction = predict(network, image, options, settings, accelerator.device)
        metric.add(prediction=prediction, reference=labels)
    together = accelerator.reduce(torch.from_numpy(metric.confusion).to(accelerator.device), "sum")
    metric.confusion = together.cpu().numpy()
    return metric.compute()


def _notes(seen: np.ndarray, present: np.ndarray, splits: splits_module.Splits) -> list[str]:
    """Name the classes of which only one split has a pixel."""
    unseen = [str(number) for number in np.flatnonzero((seen == 0) & (present > 0))]
    unscored = [str(number) for number in np.flatnonzero((seen > 0) & (present == 0))]
    notes = [f"classes of the scored split without a training pixel: {', '.join(unseen)}"] if unseen else []
    if unscored:
        where = f"classes with pixels in split {splits.fit_split}, but not in {splits.score_split}"
        notes.append(f"{where}: {list_of_names(unscored)}")
    return notes
