"""Options of the evaluation tasks: keywords of the Python functions and options of `ladder evaluate`.

Nothing heavy is imported here, because `ladder evaluate TASK --help` lists these fields in under a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..config import recipe
from ..config.fields import check_fields, check_values, fields_of, option, trust_paths_option
from ..config.image_defaults import LEAST_CROP
from ..errors import UserError
from ..images.value_range import check_range

MOST_CLASSES = 2**16
"""Most classes of a segmentation: those that a map of 16 bits can hold."""


@dataclass(kw_only=True)
class _TaskOptions:
    """Options of every task."""

    split: str | None = option(None, "Split to score; default: test, or validation where there is no test.")
    image_column: str | None = option(None, "Column that holds the images; default: found by its type.")
    image_range: tuple[float, ...] | None = option(
        None,
        "Values of black and white in images of over 8 bits, e.g. 0 4095; default: as in the model's run.",
        length=2,
    )
    trust_paths: bool = trust_paths_option()
    batch_size: int = option(64, "Images per batch and device.", above=0)
    num_workers: int = option(0, "Processes that decode images.", minimum=0, maximum=256)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_range is not None:
            self.image_range = check_range(self.image_range, "image_range")


@dataclass(kw_only=True)
class _ClassificationOptions(_TaskOptions):
    """Options of the tasks on labelled images."""

    label_column: str | None = option(None, "Column that holds the labels; default: found by its type.")
    streaming: bool = option(False, "Read the data while evaluating instead of downloading it first.")
    image_size: int | None = option(
        None,
        "Side of the images the network sees; default: of the model's preprocessor_config.json, else 224.",
        above=0,
        maximum=8192,
    )
    crop_fraction: float | None = option(
        None,
        "Centre crop as a share of the resized shorter side, 1.0 cuts no border; default: the model's.",
        minimum=LEAST_CROP,
        maximum=1,
    )


@dataclass(kw_only=True)
class KnnOptions(_ClassificationOptions):
    """Weighted k-nearest-neighbour classification of frozen features."""

    k: int = option(20, "Neighbours that vote.", above=0)
    temperature: float = option(
        0.1, "A neighbour of cosine similarity s votes with weight exp(s / temperature).", above=0
    )


@dataclass(kw_only=True)
class LinearOptions(_ClassificationOptions):
    """Linear classification of frozen features (one classifier per stage, and one on all stages)."""

    epochs: int = option(50, "Passes over the training images.", above=0)
    train_batch_size: int = option(256, "Images per step of the classifiers, over all devices.", above=0)
    learning_rates: tuple[float, ...] = option(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        "Learning rates for 256 images, swept over; the best on held-out images wins.",
        above=0,
    )
    holdout_fraction: float = option(
        0.1, "Part of the training images on which the learning rate is chosen.", above=0, maximum=0.9
    )
    holdout_images: int = option(10_000, "Most training images held out for that.", above=0)
    standardize: bool = option(
        True, "Centre and scale each feature by its training mean and deviation; false: raw features, as on ImageNet."
    )
    augment: bool = option(
        False, "Random crops and flips, features computed anew in every pass (the ImageNet protocol; many GPUs)."
    )
    max_steps: int | None = option(
        None, "Steps of the augmented protocol; needed where a stream's length is unknown.", above=0
    )
    shuffle_buffer: int = option(4096, "Undecoded examples held to shuffle, in the augmented protocol.", above=0)
    label_fraction: float | None = option(
        None, "Share of the labels that is used, the same of every class.", above=0, maximum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_fraction is not None and (self.augment or self.streaming):
            raise UserError("label_fraction needs the cached protocol: drop augment and streaming")
        if self.streaming and not self.augment and self.max_steps is not None:
            raise UserError("max_steps belongs to the augmented protocol: set augment, or drop max_steps")


@dataclass(kw_only=True)
class SemiSupervisedOptions(_ClassificationOptions):
    """Fine-tuning of the whole network with a small share of the labels."""

    label_fraction: float = option(
        0.01, "Share of the labels that is used, the same of every class.", above=0, maximum=1
    )
    epochs: int = option(50, "Passes over the labelled images.", above=0)
    min_steps: int = option(200, "Fewest optimizer steps, however few images there are.", above=0)
    batch_size: int = option(64, "Images per step and device.", above=0)
    learning_rates: tuple[float, ...] = option(
        (0.01, 0.03, 0.1),
        "Learning rates of the backbone for 256 images, chosen on a part of the labelled images.",
        above=0,
    )
    head_learning_rate_factor: float = option(
        10.0, "The classifier's learning rate is the backbone's times this.", above=0
    )
    holdout_fraction: float = option(
        0.2, "Part of the labelled images on which the learning rate is chosen.", above=0, maximum=0.9
    )
    weight_decay: float = option(0.0, "Weight decay of the backbone and classifier.", minimum=0)
    min_crop_scale: float = option(0.08, "Smallest area of a random crop.", above=0, maximum=1)
    batch_norm: str = option(
        "train",
        "frozen: running statistics; train: of each batch; sync: over all GPUs.",
        choices=("frozen", "train", "sync"),
    )


@dataclass(kw_only=True)
class _DenseOptions(_TaskOptions):
    """Options of the tasks that fine-tune a dense prediction head."""

    stages: tuple[str, ...] | None = option(None, "Stages that the head reads; default: all.")
    freeze_backbone: bool = option(False, "Train the head only, on the backbone as it is.")
    learning_rate: float = option(0.01, "Peak learning rate, for the batch size given.", above=0)
    backbone_learning_rate_factor: float = option(
        1.0, "The backbone's learning rate is learning_rate times this; 0.1 keeps more of what was pretrained.", above=0
    )
    momentum: float = option(0.9, "Momentum of SGD.", minimum=0, below=1)
    weight_decay: float = option(1e-4, "Weight decay.", minimum=0)
    max_gradient_norm: float = option(10.0, "Gradients are scaled down to this norm; 0: never.", minimum=0)
    warmup_steps: int = option(50, "Steps in which the learning rate rises from 0.", minimum=0)
    batch_norm: str = option(
        "train",
        "Backbone's batch norms. frozen: keep running statistics and scales; train: statistics of each batch; "
        "sync: of the batches of all GPUs.",
        choices=("frozen", "train", "sync"),
    )
    precise_batch_norm: int = option(
        0,
        "Training images with which running statistics are measured again at the end; 0: keep the moving averages.",
        minimum=0,
    )
    mixed_precision: str = option("no", "Arithmetic of the forward pass.", choices=("no", "fp16", "bf16"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze_backbone and self.backbone_learning_rate_factor != 1:
            raise UserError("freeze_backbone trains no backbone: drop it, or drop backbone_learning_rate_factor")


@dataclass(kw_only=True)
class DetectionOptions(_DenseOptions):
    """Fine-tuning of Faster R-CNN or Mask R-CNN with a feature pyramid; the defaults suit small data on two cores."""

    steps: int = option(400, "Optimizer steps.", above=0)
    batch_size: int = option(4, "Images per step and device.", above=0)
    learning_rate: float = option(0.02, "Peak learning rate, for the batch size given.", above=0)
    masks: str = option("auto", "Mask R-CNN; auto: where the data has masks.", choices=("auto", "yes", "no"))
    milestones: tuple[float, ...] = option(
        (0.667, 0.889), "Shares of the run after which the learning rate falls to a tenth.", minimum=0, maximum=1
    )
    short_sides: tuple[int, ...] = option(
        (192,), "Shorter side of training images, drawn at random.", above=0, maximum=8192
    )
    long_side: int = option(320, "Longest side of images.", above=0, maximum=8192)
    test_short_side: int | None = option(
        None, "Shorter side of test images; default: the last of short_sides.", above=0, maximum=8192
    )
    anchor_scale: float = option(
        4.0, "Side of the anchors in strides of their level; 8 on COCO, 4 for small images.", above=0
    )
    pyramid_channels: int = option(64, "Channels of the feature pyramid; 256 on COCO.", above=0)
    head_channels: int = option(256, "Width of the box head; 1024 on COCO.", above=0)
    proposals: int = option(300, "Boxes the first stage proposes; 1000 on COCO.", above=0)
    box_samples: int = option(128, "Boxes per image that the box head learns from; 512 on COCO.", above=0)
    score_threshold: float = option(0.05, "Detections below this score are dropped.", minimum=0, maximum=1)
    keep_empty: bool = option(False, "Also train on images without a box; the field leaves them out.")
    pyramid_batch_norm: bool = option(True, "Batch norm in the feature pyramid.")


@dataclass(kw_only=True)
class SegmentationOptions(_DenseOptions):
    """Fine-tuning of a segmentation head; the defaults suit small data on two cores."""

    head: str = option(
        "fcn", "fcn: last stages dilated, as in the VOC12aug protocol; upernet: all stages.", choices=("fcn", "upernet")
    )
    label_column: str | None = option(None, "Column that holds the label maps; default: the other image column.")
    num_classes: int | None = option(
        None, "Number of classes; default: found in the training maps.", above=0, maximum=MOST_CLASSES
    )
    ignore_index: int = option(
        255, "Value of pixels that are neither learned nor scored.", minimum=-(2**31), maximum=2**31 - 1
    )
    steps: int = option(400, "Optimizer steps.", above=0)
    batch_size: int = option(8, "Images per step and device.", above=0)
    learning_rate: float = option(0.02, "Peak learning rate, for the batch size given.", above=0)
    power: float = option(0.9, "The learning rate falls as (1 - step / steps) to this power.", minimum=0)
    crop_size: int = option(128, "Side of the training crops.", above=0, maximum=8192)
    resize_side: int | None = option(
        None, "Shorter side that images are brought to first; default: as stored.", above=0, maximum=8192
    )
    scale_range: tuple[float, ...] = option(
        (0.5, 2.0), "Range of the random scale of training images.", above=0, length=2
    )
    output_stride: int = option(8, "Stride of the last feature map of the fcn head.", choices=(4, 8, 16, 32))
    head_channels: int = option(64, "Channels of the head; 512 on VOC12aug and in UperNet.", above=0)
    dropout: float = option(0.1, "Dropout before the last layer.", minimum=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_range[0] > self.scale_range[1]:
            raise UserError(f"scale_range must be two numbers, the smaller first; it is {self.scale_range}")


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
