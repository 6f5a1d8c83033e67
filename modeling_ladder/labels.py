"""The labels of a classifier: which kind of problem they are, and whether they fit the number of classes."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig

IGNORED = -100
SINGLE = "single_label_classification"
MULTI = "multi_label_classification"
REGRESSION = "regression"
PROBLEMS = (REGRESSION, SINGLE, MULTI)


def problem_of(config: PreTrainedConfig, labels: Tensor) -> str:
    """Return the config's `problem_type`; where it has none, the one that the labels show.

    Whole numbers are classes. A single output is a regression, and all else several classes per image.
    """
    if config.problem_type is not None:
        return str(config.problem_type)
    if config.num_labels == 1:
        return REGRESSION
    return MULTI if labels.is_floating_point() or labels.dtype == torch.bool else SINGLE


def check_labels(labels: Tensor, logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """Return the labels in the type that the loss needs, or refuse labels that do not belong to the classes.

    Args:
        labels: (batch,) whole numbers, where -100 is ignored, for one class per image; (batch, num_labels) of 0 to 1
            for several; (batch,) or (batch, num_labels) numbers for regression.
        logits: (batch, num_labels).
        config: `num_labels`, and `problem_type` or None.

    Raises:
        ValueError: The shape is wrong, or a class is out of range. Ranges are looked at on a CPU only, since a GPU
            would have to wait for the answer in every step.
    """
    if config.num_labels < 1:
        raise ValueError("labels were given, but num_labels is 0, so there is no classifier: load with num_labels=N")
    problem, batch = problem_of(config, labels), logits.shape[0]
    if problem == SINGLE:
        if labels.is_floating_point() or labels.numel() != batch:
            raise ValueError(
                f"labels must be {batch} whole numbers, one class per image, got {_described(labels)}; for several "
                f"classes per image, problem_type={MULTI!r}"
            )
        # Not in a graph: there, values are not known.
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            given = labels[labels != IGNORED]
            wrong = given[(given < 0) | (given >= config.num_labels)]
            if len(wrong):
                raise ValueError(
                    f"labels has class {int(wrong[0])}, but num_labels is {config.num_labels}: classes are 0 to "
                    f"{config.num_labels - 1}, and {IGNORED} is ignored"
                )
        return labels.long()
    single_value = problem == REGRESSION and config.num_labels == 1 and labels.numel() == batch
    if not single_value and labels.shape != logits.shape:
        raise ValueError(
            f"labels must be {tuple(logits.shape)} for {problem} with num_labels={config.num_labels}, got "
            f"{_described(labels)}"
        )
    return labels if labels.is_floating_point() else labels.to(logits.dtype)


def _described(labels: Tensor) -> str:
    return f"{tuple(labels.shape)} of {str(labels.dtype).removeprefix('torch.')}"


__all__ = ["IGNORED", "PROBLEMS", "check_labels", "problem_of"]
