"""The kNN task: test images are classified by the weighted vote of their nearest training images."""

from typing import Any

from ...models.feature_rows import feature_sets
from ...models.neighbour_votes import knn_votes
from ..options import KnnOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task
from .task import ClassificationData, classification_metrics, classification_protocol, on_features


def knn(
    model: Any,
    dataset: Any,
    *,
    test_dataset: Any = None,
    output: Any = None,
    device: Any = None,
    seed: int = 0,
    **settings: Any,
) -> EvaluationResult:
    """Classify the test images by the weighted vote of their nearest training images, per stage and on all stages.

    Features are the average-pooled stages of the online network in eval mode; similarity is the cosine. "all" is the
    concatenation of the stages, each scaled to length 1.

    Args:
        model: A run's folder, a Hub name or a loaded model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or a single `Dataset`, which needs `test_dataset`.
        test_dataset: Data set to score instead of a split of `dataset`.
        output: Folder that gets `evaluation/knn-DATASET.json`; None writes no file.
        device: Default: a GPU if there is one.
        seed: Recorded only: nothing in this task is random.
        **settings: Fields of `KnnOptions`.

    Raises:
        UserError: an argument does not fit; nothing is written then.
    """
    return run_task(KnnOptions, _knn, Request(model, dataset, test_dataset, output, device, seed, settings))


def _knn(run: TaskRun) -> Outcome:
    return on_features(run, lambda data: _votes(run, data))


def _votes(run: TaskRun, data: ClassificationData) -> Outcome:
    options, device = run.options, run.device
    k = min(options.k, len(data.fit_labels))
    if k < options.k:
        run.notes.append(f"k = {options.k} is more than the {k} training images there are: k is {k}")
    fit = feature_sets(data.fit.features, normalise=True)
    score = feature_sets(data.score.features, normalise=True)
    classes = data.task.index.names
    metrics = {}
    for name in fit:
        votes = knn_votes(
            fit[name],
            data.fit_labels,
            score[name],
            device=device,
            k=k,
            temperature=options.temperature,
            num_classes=len(classes),
        )
        metrics[name] = classification_metrics(votes.cpu(), data.score_labels)
    return Outcome(
        "knn",
        metrics,
        len(data.fit_labels),
        len(data.score_labels),
        classes,
        protocol=classification_protocol(data.task, k=k),
    )
