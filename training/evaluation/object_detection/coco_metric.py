"""Average precision as COCO defines it, by faster-coco-eval, behind an `evaluate.Metric`."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
AREA_RANGES = {"AP_small": (0, 32**2), "AP_medium": (32**2, 96**2), "AP_large": (96**2, 1e10)}
"""Square pixels of the references of each size, both ends included, as COCO has it."""
THRESHOLD_50, THRESHOLD_75 = 0, 5
MOST_DETECTIONS = 2


def average_precision(
    predictions: Sequence[dict[str, Any]], references: Sequence[dict[str, Any]], num_classes: int, kind: str = "bbox"
) -> dict[str, Any]:
    """Compute AP over IoU .50 to .95, AP50, AP75, AP by area, AR with 100 detections, and AP per class.

    Args:
        predictions: Per image {"boxes" (n, 4) x, y, width, height in pixels, "scores" (n,), "labels" (n,) from 0} and,
            for masks, "masks": run-length codes of n masks.
        references: Per image {"boxes", "labels", "iscrowd" (n,), "area" (n,), "height", "width"} and "masks".
        num_classes: Number of classes. Those without a reference box have no AP and are not averaged.
        kind: "bbox" or "segm".

    Returns:
        Metric name to value from 0 to 1, NaN if it is not defined; and "per_class": list of AP.

    Raises:
        ValueError: the numbers of predictions and references differ.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} images")
    from faster_coco_eval import COCO, COCOeval_faster

    detections = _detections(predictions, kind)
    truth = COCO(_annotations(references, num_classes, kind))
    if not detections:
        return _without_detections(references, num_classes)
    evaluator = COCOeval_faster(truth, truth.loadRes(detections), iouType=kind, print_function=_silent)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    metrics = {
        "AP": _mean(precision[:, :, :, AREAS["all"], MOST_DETECTIONS]),
        "AP50": _mean(precision[THRESHOLD_50, :, :, AREAS["all"], MOST_DETECTIONS]),
        "AP75": _mean(precision[THRESHOLD_75, :, :, AREAS["all"], MOST_DETECTIONS]),
        "AP_small": _mean(precision[:, :, :, AREAS["small"], MOST_DETECTIONS]),
        "AP_medium": _mean(precision[:, :, :, AREAS["medium"], MOST_DETECTIONS]),
        "AP_large": _mean(precision[:, :, :, AREAS["large"], MOST_DETECTIONS]),
        "AR100": _mean(recall[:, :, AREAS["all"], MOST_DETECTIONS]),
    }
    per_class = [_mean(precision[:, :, number, AREAS["all"], MOST_DETECTIONS]) for number in range(num_classes)]
    return {**metrics, "per_class": per_class}


@cache
def _metric_class() -> type:
    """The `evaluate.Metric`; defined here because importing evaluate takes many seconds."""
    import datasets
    import evaluate

    class CocoAveragePrecision(evaluate.Metric):
        """COCO's average precision. Examples are kept in memory, not in the Arrow file of `evaluate`."""

        def __init__(self, num_classes: int, kind: str = "bbox", **kwargs: Any) -> None:
            self.num_classes, self.kind = num_classes, kind
            self.examples: list[tuple[dict[str, Any], dict[str, Any]]] = []
            super().__init__(keep_in_memory=True, **kwargs)

        def _info(self) -> Any:
            box = {"boxes": [[datasets.Value("float32")]], "labels": [datasets.Value("int64")]}
            features = {
                "predictions": {**box, "scores": [datasets.Value("float32")]},
                "references": {**box, "iscrowd": [datasets.Value("bool")], "area": [datasets.Value("float32")]},
            }
            return evaluate.MetricInfo(
                description="COCO average precision of boxes or masks.",
                citation="Lin et al. 2014, Microsoft COCO: Common Objects in Context.",
                inputs_description="Lists of dictionaries, see ladder_training.evaluation.coco_metric.",
                features=datasets.Features(features),
            )

        def add(self, *, prediction: dict[str, Any], reference: dict[str, Any], **kwargs: Any) -> None:
            """Add one image."""
            self.examples.append((prediction, reference))

        def add_batch(self, *, predictions: Any, references: Any, **kwargs: Any) -> None:
            """Add images."""
            self.examples += zip(predictions, references, strict=True)

        def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
            """Compute average precision of the images added so far, and start anew."""
            if predictions is not None:
                self.add_batch(predictions=predictions, references=references)
            examples, self.examples = self.examples, []
            return self._compute([pair[0] for pair in examples], [pair[1] for pair in examples])

        def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
            return average_precision(predictions, references, self.num_classes, self.kind)

    return CocoAveragePrecision


def coco_metric(num_classes: int, kind: str = "bbox") -> Any:
    """Make an `evaluate.Metric` that computes `average_precision`.

    Args:
        num_classes: Number of classes.
        kind: "bbox" or "segm".
    """
    return _metric_class()(num_classes, kind)


def _annotations(references: Sequence[dict[str, Any]], num_classes: int, kind: str) -> dict[str, Any]:
    """Convert references to COCO's format; an image's id is its index in the list."""
    annotations: list[dict[str, Any]] = []
    for image, reference in enumerate(references):
        for index, box in enumerate(np.asarray(reference["boxes"], float).reshape(-1, 4)):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(reference["labels"][index]),
                "bbox": box.tolist(),
                "area": float(reference["area"][index]),
                "iscrowd": int(reference["iscrowd"][index]),
            }
            if kind == "segm":
                annotation["segmentation"] = reference["masks"][index]
            annotations.append(annotation)
    images = [
        {"id": image, "height": int(reference["height"]), "width": int(reference["width"])}
        for image, reference in enumerate(references)
    ]
    categories = [{"id": number, "name": str(number)} for number in range(num_classes)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _detections(predictions: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    detections = []
    for image, prediction in enumerate(predictions):
        for index, box in enumerate(np.asarray(prediction["boxes"], float).reshape(-1, 4)):
            detection = {
                "image_id": image,
                "category_id": int(prediction["labels"][index]),
                "score": float(prediction["scores"][index]),
            }
            if kind == "segm":
                detection["segmentation"] = prediction["masks"][index]
            else:
                detection["bbox"] = box.tolist()
            detections.append(detection)
    return detections


def _without_detections(references: Sequence[dict[str, Any]], num_classes: int) -> dict[str, Any]:
    """The metrics without any detection: 0 for classes and sizes that have a reference box, NaN for others."""
    present, areas = set(), []
    for reference in references:
        for label, crowd, area in zip(reference["labels"], reference["iscrowd"], reference["area"], strict=True):
            if not crowd:
                present.add(int(label))
                areas.append(float(area))
    value = 0.0 if present else math.nan
    metrics = dict.fromkeys(("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"), value)
    for name, (low, high) in AREA_RANGES.items():
        metrics[name] = 0.0 if any(low <= area <= high for area in areas) else math.nan
    per_class = [0.0 if number in present else math.nan for number in range(num_classes)]
    return {**metrics, "per_class": per_class}


def _mean(values: np.ndarray) -> float:
    """Average the defined entries (undefined ones are -1); NaN if there is none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _silent(*values: Any) -> None:
    """faster-coco-eval reports its progress here."""
