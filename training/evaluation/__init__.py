"""Evaluation of backbones: kNN, linear probe, semi-supervised fine-tuning, detection, segmentation.

Each task is a function `task(model, dataset, *, test_dataset=None, output=None, device=None, seed=0, **settings)`. It
fits on the train split, scores the test split (the validation split if there is no test split), and returns an
`EvaluationResult`. `model` is a loaded model, a run's folder, or anything that `LadderSiameseModel.from_pretrained`
accepts; `settings` are the fields of the task's class in `options.py`. The functions are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.neighbour_votes import knn_accuracy
    from .image_classification.fine_tuning import semi_supervised
    from .image_classification.linear_probe import linear
    from .image_classification.nearest_neighbours import knn
    from .object_detection.task import detection
    from .report import EvaluationResult
    from .semantic_segmentation.task import segmentation

# A submodule must not have the name of a function: importing it would replace the function by the module.
_HOMES = {
    "EvaluationResult": "report",
    "detection": "object_detection.task",
    "knn": "image_classification.nearest_neighbours",
    "knn_accuracy": ".models.neighbour_votes",
    "linear": "image_classification.linear_probe",
    "segmentation": "semantic_segmentation.task",
    "semi_supervised": "image_classification.fine_tuning",
}

__all__ = [
    "EvaluationResult",
    "detection",
    "knn",
    "knn_accuracy",
    "linear",
    "segmentation",
    "semi_supervised",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
