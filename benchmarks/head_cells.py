"""The check of one backbone in one head: the features that the head gets are those of the pretrained backbone."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_cells import SIZE, Cell, compared, some_images
from torch import Tensor
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.backbone_utils import BackboneMixin

from modeling_ladder import load_backbone_into, load_native_backbone

MOST_STAGES = 4
CLASSES = 3


def upernet(config: Any) -> Any:
    """A small UperNet."""
    sizes: dict[str, Any] = {"hidden_size": 16, "auxiliary_channels": 8, "num_labels": CLASSES}
    if config.model_type == "timm_wrapper":
        sizes["auxiliary_in_channels"] = config.hidden_sizes[2]
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=config, **sizes))


def detr(config: Any) -> Any:
    """A small DETR."""
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 3, "num_labels": CLASSES}
    return DetrForObjectDetection(DetrConfig(use_timm_backbone=False, backbone_config=config, **small, **heads))


def mask2former(config: Any) -> Any:
    """A small Mask2Former."""
    small = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
    widths = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "num_attention_heads": 2, "num_queries": CLASSES}
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=config, **small, **widths))


def composite_cell(make: Callable[[Any], Any], source: Path) -> Cell:
    """A model of transformers around the backbone: what its backbone gives while the whole model works on images."""
    published = load_native_backbone(source)
    config = copy.deepcopy(published.config)
    names = [name for name in config.stage_names if name != "stem"]
    # Heads read four maps: of twelve blocks those that are levels of `ladder pretrain`.
    read = names if len(names) <= MOST_STAGES else names[len(names) // MOST_STAGES - 1 :: len(names) // MOST_STAGES]
    config.out_features = read
    model = load_backbone_into(make(config), source).eval()
    inner = next(part for part in model.modules() if part is not model and isinstance(part, BackboneMixin))
    got: list[Any] = []
    handle = inner.register_forward_hook(lambda module, given, output: got.append(output))
    images = some_images()
    with torch.inference_mode():
        result = model(images)
        maps = dict(zip(names, published(images).feature_maps, strict=True))
    handle.remove()
    if not all(torch.isfinite(value).all() for value in result.values() if torch.is_tensor(value)):
        return Cell(None, f"{type(model).__name__} gives values that are not finite")
    # A model may ask for fewer maps than the backbone could give.
    own = list(inner.out_features)
    return compared(list(got[0].feature_maps), [maps[name] for name in own])


def classifier_cell(source: Path, output: Path) -> Cell:
    """The classifier that transformers loads from the folder of the backbone."""
    model = AutoModelForImageClassification.from_pretrained(source, num_labels=CLASSES).eval()
    return compare_classifier(model, load_native_backbone(source))


def compare_classifier(model: Any, backbone: Any) -> Cell:
    """Maps of all stages before their norms, which classifiers of some families do not have; timm's pooled features."""
    images = some_images()
    with torch.inference_mode():
        if backbone.config.model_type == "timm_wrapper":
            inner = model.timm_model
            got = [inner.forward_head(inner.forward_features(images), pre_logits=True)]
            want = [backbone.timm_model(images)]
        else:
            found = model(images, output_hidden_states=True)
            got = list(getattr(found, "reshaped_hidden_states", None) or found.hidden_states)
            want = list(backbone(images, output_hidden_states=True).hidden_states)
            if backbone.config.model_type == "swin":  # its classifier gives the maps of earlier stages at half the size
                got, want = got[-1:], want[-1:]
    return compared(got, want)


def detector_cell(source: Path, output: Path) -> Cell:
    """The Faster R-CNN of `ladder evaluate detection`."""
    from ladder_training.evaluation.backbone import ImageSettings, StageFeatures
    from ladder_training.evaluation.object_detection.model import build_detector
    from ladder_training.finetuning.options import FinetuneDetectionOptions

    options = FinetuneDetectionOptions(short_sides=(SIZE,), long_side=SIZE, pyramid_channels=8, head_channels=8)
    detector = build_detector(
        StageFeatures(load_native_backbone(source)), CLASSES, options, ImageSettings(), masks=False
    )
    return compare_detector(detector.eval(), load_native_backbone(source))


def compare_detector(detector: Any, backbone: Any) -> Cell:
    """What the pyramid gets while the detector works on images."""
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    body = detector.backbone.body
    body.register_forward_hook(lambda module, given, output: seen.append((given[0], dict(output))))
    with torch.inference_mode():
        detector(list(some_images()))
        batch, maps = seen[0]
        want = dict(zip(backbone.out_features, backbone(batch).feature_maps, strict=True))
    return compared(list(maps.values()), [want[name] for name in maps])


def finetuned_cell(task: str, source: Path, output: Path) -> Cell:
    """The folder of `ladder finetune` after a step of a rate near zero, as it is loaded again.

    So its features must still be those of the backbone. The statistics of batch norm, which a step moves at any rate,
    are set back before the comparison.
    """
    from ladder_training.errors import UserError
    from ladder_training.finetuning.detection import load_detector
    from ladder_training.finetuning.run import finetune

    dense = {"batch_size": 2, "steps": 1, "warmup_steps": 0, "head_channels": 8, "learning_rate": 1e-9}
    settings: dict[str, dict[str, Any]] = {
        "classification": {
            "batch_size": 4,
            "min_steps": 1,
            "max_steps": 1,
            "learning_rates": (1e-9,),
            "weight_decay": 0.0,
        },
        "detection": {**dense, "short_sides": (SIZE,), "long_side": SIZE, "pyramid_channels": 8, "proposals": 20},
        "segmentation": {**dense, "label_column": "label_map", "crop_size": SIZE},
    }
    data = small_data(6)
    try:
        finetune(task, str(source), data, output, test_dataset=data, device="cpu", **settings[task])
    except UserError as error:
        return Cell(None, str(error))
    backbone = load_native_backbone(source)
    if task == "classification":
        classifier = AutoModelForImageClassification.from_pretrained(output).eval()
        return compare_classifier(_with_statistics(classifier, backbone), backbone)
    if task == "detection":
        detector, _ = load_detector(output)
        return compare_detector(_with_statistics(detector, backbone), backbone)
    network = AutoModelForSemanticSegmentation.from_pretrained(output).eval()
    _with_statistics(network, backbone)
    images = some_images()
    with torch.inference_mode():
        return compared(list(network.backbone(images).feature_maps), list(backbone(images).feature_maps))


def _with_statistics(model: Any, backbone: Any) -> Any:
    """Give a model the batch-norm statistics of a backbone inside of it."""
    own = dict(model.named_buffers())
    for name, value in backbone.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            [place] = [one for one in own if one == name or one.endswith(f".{name}")]
            own[place].copy_(value)
    return model


def small_data(count: int) -> Any:
    """Noisy images of three colours with a class, a box and a label map, as a `datasets.Dataset`."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from datasets import List as ListOf
    from PIL import Image as PILImage

    generator = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"image": [], "label": [], "label_map": [], "objects": []}
    for number in range(count):
        kind = number % CLASSES
        pixels = generator.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        pixels[16:48, 8:56, kind] = 240
        label_map = np.zeros((SIZE, SIZE), np.uint8)
        label_map[16:48, 8:56] = kind + 1
        columns["image"].append(pixels)
        columns["label"].append(kind)
        columns["label_map"].append(PILImage.fromarray(label_map))
        columns["objects"].append({"bbox": [[8.0, 16.0, 48.0, 32.0]], "category": [kind]})
    classes = ClassLabel(num_classes=CLASSES)
    boxes = {"bbox": ListOf(ListOf(Value("float32"), length=4)), "category": ListOf(classes)}
    features = Features({"image": Image(), "label": classes, "label_map": Image(), "objects": boxes})
    return Dataset.from_dict(columns, features=features)


HEADS: dict[str, Callable[[Path, Path], Cell]] = {
    "UperNet": lambda source, output: composite_cell(upernet, source),
    "DETR": lambda source, output: composite_cell(detr, source),
    "Mask2Former": lambda source, output: composite_cell(mask2former, source),
    "classifier": classifier_cell,
    "detector": detector_cell,
    "finetune classification": lambda source, output: finetuned_cell("classification", source, output),
    "finetune detection": lambda source, output: finetuned_cell("detection", source, output),
    "finetune segmentation": lambda source, output: finetuned_cell("segmentation", source, output),
}
