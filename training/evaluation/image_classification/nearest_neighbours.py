"""The kNN task: frozen features of a backbone, scored by weighted nearest neighbours."""

import time
from typing import Any

from ...models.all_stages import with_all_stages
from ...models.neighbour_votes import knn_votes
from ..options import KnnOptions
from ..report import EvaluationResult, check_output
from .task import classification_metrics, classification_result, prepare_classification


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
    start = time.monotonic()
    check_output(output)
    data = prepare_classification(model, dataset, test_dataset, KnnOptions, settings, device)
    options, notes = data.options, data.notes
    k = min(options.k, len(data.fit_labels))
    if k < options.k:
        notes.append(f"k = {options.k} is more than the {k} training images there are: k is {k}")
    fit = with_all_stages(data.fit.features, normalise=True)
    score = with_all_stages(data.score.features, normalise=True)
    metrics = {}
    for name in fit:
        votes = knn_votes(
            fit[name].to(data.device),
            data.fit_labels.to(data.device),
            score[name].to(data.device),
            k=k,
            temperature=options.temperature,
            num_classes=len(data.classes),
        )
        metrics[name] = classification_metrics(votes.cpu(), data.score_labels)
    result = classification_result("knn", data, metrics, seed, start, protocol={"k": k})
    if output is not None:
        result.save(output)
    return result
