"""Options of `ladder finetune`: the settings of each task. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..config.fields import option
from ..errors import UserError
from ..evaluation.options import DetectionOptions, SegmentationOptions, SemiSupervisedOptions


@dataclass(kw_only=True)
class FinetuneClassificationOptions(SemiSupervisedOptions):
    """Fine-tuning of a transformers image classifier: AdamW, a cosine, random crops and flips."""

    label_fraction: float = option(
        1.0, "Share of the labels that is used, the same of every class.", above=0, maximum=1
    )
    epochs: int = option(20, "Passes over the training images.", above=0)
    min_steps: int = option(300, "Fewest optimizer steps, however few images there are.", above=0)
    max_steps: int | None = option(None, "Most optimizer steps; default: as many as the passes take.", minimum=1)
    batch_size: int = option(64, "Images per step and device.", above=0)
    learning_rates: tuple[float, ...] = option(
        (5e-4,), "Peak learning rate of the backbone; of several, the best on held-out training images wins.", above=0
    )
    head_learning_rate_factor: float = option(
        10.0, "The classifier's learning rate is the backbone's times this.", above=0
    )
    weight_decay: float = option(0.05, "Weight decay of matrices and kernels.", minimum=0)
    min_crop_scale: float = option(0.35, "Smallest area of a random crop.", above=0, maximum=1)
    flip: bool = option(True, "Mirror images at random; not for digits and letters.")
    warmup: float = option(0.1, "Share of the steps in which the learning rate rises from 0.", minimum=0, below=1)
    mixed_precision: str = option("no", "Arithmetic of the network.", choices=("no", "fp16", "bf16"))


@dataclass(kw_only=True)
class FinetuneDetectionOptions(DetectionOptions):
    """Fine-tuning of torchvision's Faster R-CNN or Mask R-CNN, which transformers cannot load; its backbone it can."""


@dataclass(kw_only=True)
class FinetuneSegmentationOptions(SegmentationOptions):
    """Fine-tuning of transformers' UperNet, on all stages of the backbone."""

    head: str = option("upernet", "The head that transformers can load.", choices=("upernet",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages is not None:
            raise UserError("finetune segmentation reads all stages, as UperNet of transformers does: drop stages")


FINETUNE_OPTIONS: dict[str, type] = {
    "classification": FinetuneClassificationOptions,
    "detection": FinetuneDetectionOptions,
    "segmentation": FinetuneSegmentationOptions,
}
