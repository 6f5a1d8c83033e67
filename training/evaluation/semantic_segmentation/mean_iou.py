"""Mean intersection over union from a confusion matrix, as an `evaluate.Metric`."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np


def confusion_matrix(prediction: np.ndarray, reference: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns), int64 (num_classes, num_classes).

    Args:
        prediction: Class numbers, any shape.
        reference: Class numbers or `ignore_index`, the same shape.
        num_classes: Number of classes.
        ignore_index: Pixels whose reference has this value are not counted.

    Raises:
        ValueError: the shapes differ, or a number is not a class.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    counted = reference != ignore_index
    predicted, true = prediction[counted].astype(np.int64), reference[counted].astype(np.int64)
    for name, values in (("prediction", predicted), ("reference", true)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{name} holds {values.min()} to {values.max()}, but there are {num_classes} classes")
    return np.bincount(num_classes * true + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def scores_of(confusion: np.ndarray) -> dict[str, Any]:
    """Compute mean IoU, mean class accuracy and pixel accuracy from a confusion matrix.

    A class that occurs in no reference and no prediction has no IoU and is not averaged; one that occurs in predictions
    only has IoU 0. Mean class accuracy is the average over the classes that occur in a reference.

    Returns:
        Metric name to value from 0 to 1 (NaN without any pixel); and "per_class": list of IoU.
    """
    confusion = confusion.astype(np.float64)
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, accuracy = right / (true + predicted - right), right / true
        pixel_accuracy = right.sum() / true.sum()
    return {
        "mean_iou": _mean(iou),
        "mean_class_accuracy": _mean(accuracy),
        "pixel_accuracy": float(pixel_accuracy),
        "per_class": iou.tolist(),
    }


@cache
def _metric_class() -> type:
    """The `evaluate.Metric`; defined here because importing evaluate takes many seconds."""
    import datasets
    import evaluate

    class MeanIntersectionOverUnion(evaluate.Metric):
        """Mean IoU. Only the confusion matrix is kept; `evaluate` itself would write every pixel to an Arrow file."""

        def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs: Any) -> None:
            self.num_classes, self.ignore_index = num_classes, ignore_index
            self.confusion = np.zeros((num_classes, num_classes), np.int64)
            super().__init__(keep_in_memory=True, **kwargs)

        def _info(self) -> Any:
            label_map = [[datasets.Value("int64")]]
            return evaluate.MetricInfo(
                description="Mean intersection over union of label maps.",
                citation="Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, section 4.3.",
                inputs_description="Label maps (height, width), see ladder_training.evaluation.mean_iou.",
                features=datasets.Features({"predictions": label_map, "references": label_map}),
            )

        def add(self, *, prediction: Any, reference: Any, **kwargs: Any) -> None:
            """Add one label map."""
            self.confusion += confusion_matrix(prediction, reference, self.num_classes, self.ignore_index)

        def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Any], **kwargs: Any) -> None:
            """Add label maps."""
            for prediction, reference in zip(predictions, references, strict=True):
                self.add(prediction=prediction, reference=reference)

        def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
            """Compute the scores of the label maps added so far, and start anew."""
            if predictions is not None:
                self.add_batch(predictions=predictions, references=references)
            confusion, self.confusion = self.confusion, np.zeros_like(self.confusion)
            return scores_of(confusion)

        def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
            return self.compute(predictions=predictions, references=references)

    return MeanIntersectionOverUnion


def mean_iou_metric(num_classes: int, ignore_index: int = 255) -> Any:
    """Make an `evaluate.Metric` that computes `scores_of` on all label maps added to it."""
    return _metric_class()(num_classes, ignore_index)


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
