"""Options of the evaluation tasks: keywords of the Python functions and options of `ladder evaluate`.

Nothing heavy is imported here, because `ladder evaluate TASK --help` lists these fields in under a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..config import recipe
from ..config.fields import check_value, check_values, fields_of, option
from ..errors import UserError


@dataclass(kw_only=True)
class _TaskOptions:
    """Options of every task."""

    split: str | None = option(None, "Split to score; default: test, or validation where there is no test.")
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    batch_size: int = option(64, "Images per batch and device.")
    num_workers: int = option(0, "Processes that decode images.")

    def __post_init__(self) -> None:
        for name, declared in fields_of(type(self)).items():
            value = check_value(getattr(self, name), declared, name)
            # As a tuple, options stay as they are once checked, and compare equal whatever the user wrote.
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        self._check_positive("batch_size")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not values or any(entry is not None and not entry > 0 for entry in values):
                raise UserError(f"{name} must be greater than 0; it is {value!r}")


@dataclass(kw_only=True)
class _ClassificationOptions(_TaskOptions):
    """Options of the tasks on labelled images."""

    label_column: str | None = option(None, "Column that holds the labels; default: found by its type.")
    streaming: bool = option(False, "Read the data while evaluating instead of downloading it first.")
    image_size: int | None = option(
        None, "Side of the images the network sees; default: of the model's preprocessor_config.json, else 224."
    )
    crop_fraction: float | None = option(
        None,
        "Centre crop as a share of the resized shorter side, 1.0 cuts no border; default: the model's.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("image_size", "crop_fraction")
        if self.crop_fraction is not None and self.crop_fraction > 1:
            raise UserError(f"crop_fraction must be at most 1; it is {self.crop_fraction}")


@dataclass(kw_only=True)
class KnnOptions(_ClassificationOptions):
    """Weighted k-nearest-neighbour classification of frozen features."""

    k: int = option(20, "Neighbours that vote.")
    temperature: float = option(0.1, "A neighbour of cosine similarity s votes with weight exp(s / temperature).")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("k", "temperature")


@dataclass(kw_only=True)
class LinearOptions(_ClassificationOptions):
    """Linear classification of frozen features (one classifier per stage, and one on all stages)."""

    epochs: int = option(50, "Passes over the training images.")
    train_batch_size: int = option(256, "Images per step of the classifiers, over all devices.")
    learning_rates: tuple[float, ...] = option(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), "Learning rates for 256 images, swept over; the best on held-out images wins."
    )
    holdout_fraction: float = option(0.1, "Part of the training images on which the learning rate is chosen.")
    holdout_images: int = option(10_000, "Most training images held out for that.")
    standardize: bool = option(
        True, "Centre and scale each feature by its training mean and deviation; false: raw features, as on ImageNet."
    )
    augment: bool = option(
        False, "Random crops and flips, features computed anew in every pass (the ImageNet protocol; many GPUs)."
    )
    max_steps: int | None = option(None, "Steps of the augmented protocol; needed where a stream's length is unknown.")
    shuffle_buffer: int = option(4096, "Undecoded examples held to shuffle, in the augmented protocol.")
    label_fraction: float | None = option(None, "Share of the labels that is used, the same of every class.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("epochs", "train_batch_size", "learning_rates", "holdout_images", "max_steps")
        _check_fraction("holdout_fraction", self.holdout_fraction, 0.9)
        if self.label_fraction is not None:
            _check_fraction("label_fraction", self.label_fraction, 1.0)
            if self.augment or self.streaming:
                raise UserError("label_fraction needs the cached protocol: drop augment and streaming")
        if self.streaming and not self.augment and self.max_steps is not None:
            raise UserError("max_steps belongs to the augmented protocol: set augment, or drop max_steps")


@dataclass(kw_only=True)
class SemiSupervisedOptions(_ClassificationOptions):
    """Fine-tuning of the whole network with a small share of the labels."""

    label_fraction: float = option(0.01, "Share of the labels that is used, the same of every class.")
    epochs: int = option(50, "Passes over the labelled images.")
    min_steps: int = option(200, "Fewest optimizer steps, however few images there are.")
    batch_size: int = option(64, "Images per step and device.")
    learning_rates: tuple[float, ...] = option(
        (0.01, 0.03, 0.1), "Learning rates of the backbone for 256 images, chosen on a part of the labelled images."
    )
    head_learning_rate_factor: float = option(10.0, "The classifier's learning rate is the backbone's times this.")
    holdout_fraction: float = option(0.2, "Part of the labelled images on which the learning rate is chosen.")
    weight_decay: float = option(0.0, "Weight decay of the backbone and classifier.")
    min_crop_scale: float = option(0.08, "Smallest area of a random crop.")
    batch_norm: str = option(
        "train",
        "frozen: running statistics; train: of each batch; sync: over all GPUs.",
        choices=("frozen", "train", "sync"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("epochs", "min_steps", "learning_rates", "head_learning_rate_factor", "min_crop_scale")
        _check_fraction("label_fraction", self.label_fraction, 1.0)
        _check_fraction("holdout_fraction", self.holdout_fraction, 0.9)


@dataclass(kw_only=True)
class _DenseOptions(_TaskOptions):
    """Options of the tasks that fine-tune a dense prediction head."""

    stages: tuple[str, ...] | None = option(None, "Stages that the head reads; default: all.")
    freeze_backbone: bool = option(False, "Train the head only, on the backbone as it is.")
    learning_rate: float = option(0.01, "Peak learning rate, for the batch size given.")
    backbone_learning_rate_factor: float = option(
        1.0, "The backbone's learning rate is learning_rate times this; 0.1 keeps more of what was pretrained."
    )
    momentum: float = option(0.9, "Momentum of SGD.")
    weight_decay: float = option(1e-4, "Weight decay.")
    max_gradient_norm: float = option(10.0, "Gradients are scaled down to this norm; 0: never.")
    warmup_steps: int = option(50, "Steps in which the learning rate rises from 0.")
    batch_norm: str = option(
        "train",
        "Backbone's batch norms. frozen: keep running statistics and scales; train: statistics of each batch; "
        "sync: of the batches of all GPUs.",
        choices=("frozen", "train", "sync"),
    )
    precise_batch_norm: int = option(
        0, "Training images with which running statistics are measured again at the end; 0: keep the moving averages."
    )
    mixed_precision: str = option("no", "Arithmetic of the forward pass.", choices=("no", "fp16", "bf16"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("learning_rate", "backbone_learning_rate_factor")
        if self.freeze_backbone and self.backbone_learning_rate_factor != 1:
            raise UserError("freeze_backbone trains no backbone: drop it, or drop backbone_learning_rate_factor")


@dataclass(kw_only=True)
class DetectionOptions(_DenseOptions):
    """Fine-tuning of Faster R-CNN or Mask R-CNN with a feature pyramid; the defaults suit small data on two cores."""

    steps: int = option(400, "Optimizer steps.")
    batch_size: int = option(4, "Images per step and device.")
    learning_rate: float = option(0.02, "Peak learning rate, for the batch size given.")
    masks: str = option("auto", "Mask R-CNN; auto: where the data has masks.", choices=("auto", "yes", "no"))
    milestones: tuple[float, ...] = option(
        (0.667, 0.889), "Shares of the run after which the learning rate falls to a tenth."
    )
    short_sides: tuple[int, ...] = option((192,), "Shorter side of training images, drawn at random.")
    long_side: int = option(320, "Longest side of images.")
    test_short_side: int | None = option(None, "Shorter side of test images; default: the last of short_sides.")
    anchor_scale: float = option(4.0, "Side of the anchors in strides of their level; 8 on COCO, 4 for small images.")
    pyramid_channels: int = option(64, "Channels of the feature pyramid; 256 on COCO.")
    head_channels: int = option(256, "Width of the box head; 1024 on COCO.")
    proposals: int = option(300, "Boxes the first stage proposes; 1000 on COCO.")
    box_samples: int = option(128, "Boxes per image that the box head learns from; 512 on COCO.")
    score_threshold: float = option(0.05, "Detections below this score are dropped.")
    keep_empty: bool = option(False, "Also train on images without a box; the field leaves them out.")
    pyramid_batch_norm: bool = option(True, "Batch norm in the feature pyramid.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("steps", "short_sides", "long_side", "test_short_side", "anchor_scale", "proposals")
        self._check_positive("box_samples")
        self._check_positive("pyramid_channels", "head_channels")


@dataclass(kw_only=True)
class SegmentationOptions(_DenseOptions):
    """Fine-tuning of a segmentation head; the defaults suit small data on two cores."""

    head: str = option(
        "fcn", "fcn: last stages dilated, as in the VOC12aug protocol; upernet: all stages.", choices=("fcn", "upernet")
    )
    label_column: str | None = option(None, "Column that holds the label maps; default: the other image column.")
    num_classes: int | None = option(None, "Number of classes; default: found in the training maps.")
    ignore_index: int = option(255, "Value of pixels that are neither learned nor scored.")
    steps: int = option(400, "Optimizer steps.")
    batch_size: int = option(8, "Images per step and device.")
    learning_rate: float = option(0.02, "Peak learning rate, for the batch size given.")
    power: float = option(0.9, "The learning rate falls as (1 - step / steps) to this power.")
    crop_size: int = option(128, "Side of the training crops.")
    resize_side: int | None = option(None, "Shorter side that images are brought to first; default: as stored.")
    scale_range: tuple[float, ...] = option((0.5, 2.0), "Range of the random scale of training images.")
    output_stride: int = option(8, "Stride of the last feature map of the fcn head.")
    head_channels: int = option(64, "Channels of the head; 512 on VOC12aug and in UperNet.")
    dropout: float = option(0.1, "Dropout before the last layer.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("steps", "crop_size", "resize_side", "scale_range", "head_channels", "num_classes")
        if len(self.scale_range) != 2 or self.scale_range[0] > self.scale_range[1]:
            raise UserError(f"scale_range must be two numbers, the smaller first; it is {self.scale_range}")
        if self.output_stride not in (4, 8, 16, 32):
            raise UserError(f"output_stride must be 4, 8, 16 or 32; it is {self.output_stride}")


TASK_OPTIONS: dict[str, type] = {
    "knn": KnnOptions,
    "linear": LinearOptions,
    "detection": DetectionOptions,
    "segmentation": SegmentationOptions,
    "semi_supervised": SemiSupervisedOptions,
}

Options = TypeVar("Options", bound=_TaskOptions)


def read_options(kind: type[Options], settings: Mapping[str, Any]) -> Options:
    """Build a task's options from keywords.

    Raises:
        UserError: the task has no such setting (the nearest one is suggested), or a value does not fit.
    """
    return kind(**_check_settings(kind, settings))


def read_recipe(task: str, name_or_path: str | Path) -> dict[str, Any]:
    """Read a task's settings from a YAML file, written as pretraining recipes are.

    Args:
        task: A key of `TASK_OPTIONS`.
        name_or_path: A file, or the name of a recipe in `recipes/TASK/`.

    Returns:
        Setting to value, with the types that the task declares.

    Raises:
        UserError: there is no such recipe, or it is not a flat YAML mapping of the task's settings.
    """
    written = recipe.read_recipe(name_or_path, recipe.RECIPE_FOLDER / task)
    settings = _check_settings(TASK_OPTIONS[task], written.values, f"{written.where}: ")
    try:
        TASK_OPTIONS[task](**settings)
    except UserError as error:
        raise UserError(f"{written.where}: {error}") from error
    return settings


def _check_settings(kind: type, settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The settings that were given, with their declared names and types; None leaves a setting at its default."""
    checked = check_values(settings, fields_of(kind), where, what="setting", list_known=True)
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in checked.items() if value is not None
    }


def _check_fraction(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UserError(f"{name} must be more than 0 and at most {most}; it is {value}")
