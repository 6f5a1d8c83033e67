"""The kNN task: frozen features of a backbone, scored by weighted nearest neighbours."""

from typing import Any

from ...models.all_stages import with_all_stages
from ...models.neighbour_votes import knn_votes
from ..options import KnnOptions
from ..report import EvaluationResult
from ..task_run import Outcome, Request, TaskRun, run_task
from .task import classification_metrics, classification_protocol, extract_classification


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
    """Classify the test images by the votes of their nearest training images, per stage and on all stages.

    Features are average-pooled stages of the online network in eval mode; similarity is the cosine. "all" puts the
    stages side by side, each scaled to length 1.

    Args:
        model: Any reference to a model, see `load_backbone`.
        dataset: Name, folder, `DatasetDict`, or `Dataset` (then `test_dataset` is needed).
        test_dataset: Scored instead of a split of `dataset`.
        output: Folder that gets `evaluation/knn-DATASET.json`; None writes nothing.
        device: Default: a GPU where there is one.
        seed: Nothing here is random; it is recorded.
        **settings: Fields of `KnnOptions`.

    Raises:
        UserError: anything the user gave does not fit; nothing is written then.
    """
    return run_task(KnnOptions, _knn, Request(model, dataset, test_dataset, output, device, seed, settings))


def _knn(run: TaskRun) -> Outcome:
    data = extract_classification(run)
    options, device = run.options, run.device
    k = min(options.k, len(data.fit_labels))
    if k < options.k:
        run.notes.append(f"k = {options.k} is more than the {k} training images there are: k is {k}")
    fit = with_all_stages(data.fit.features, normalise=True)
    score = with_all_stages(data.score.features, normalise=True)
    classes = data.task.index.names
    metrics = {}
    for name in fit:
        votes = knn_votes(
            fit[name].to(device),
            data.fit_labels.to(device),
            score[name].to(device),
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
