"""The classifier's loss for every kind of problem against torch's own, and labels that do not fit the classes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from helpers.models import tiny_resnet
from modeling_ladder import LadderSiameseConfig, LadderSiameseForImageClassification, LadderSiameseModel

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SEVERAL = [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]


def classifier(**fields: Any) -> LadderSiameseForImageClassification:
    torch.manual_seed(0)
    return LadderSiameseForImageClassification(LadderSiameseConfig(backbone_config=tiny_resnet(), **fields)).eval()


@pytest.mark.parametrize(
    ("fields", "labels", "problem", "loss"),
    [
        ({"num_labels": 3}, torch.tensor([0, 1, 2, 0]), "single_label_classification", F.cross_entropy),
        ({"num_labels": 3}, torch.tensor([0, -100, 2, 0]), "single_label_classification", F.cross_entropy),
        (
            {"num_labels": 3},
            torch.tensor([0, 1, 2, 0], dtype=torch.uint8),
            "single_label_classification",
            F.cross_entropy,
        ),
        ({"num_labels": 3}, torch.tensor(SEVERAL).float(), "multi_label_classification", None),
        ({"num_labels": 3}, torch.tensor(SEVERAL).bool(), "multi_label_classification", None),
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            torch.tensor(SEVERAL),
            "multi_label_classification",
            None,
        ),
        ({"num_labels": 1}, torch.tensor([0.5, 1, 2, 3]), "regression", F.mse_loss),
        ({"num_labels": 1}, torch.tensor([1, 1, 2, 3]), "regression", F.mse_loss),
        ({"num_labels": 3, "problem_type": "regression"}, torch.tensor(SEVERAL), "regression", F.mse_loss),
    ],
)
def test_loss_of_every_problem(fields: dict[str, Any], labels: torch.Tensor, problem: str, loss: Any) -> None:
    model = classifier(**fields)
    output = model(IMAGES, labels=labels)
    scores = output.logits.squeeze(1) if fields["num_labels"] == 1 else output.logits
    if loss is F.cross_entropy:
        expected = loss(scores, labels.long())
    else:
        expected = (loss or F.binary_cross_entropy_with_logits)(scores, labels.float())
    assert torch.equal(output.loss, expected)
    assert model.config.problem_type == problem


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        ({"num_labels": 3}, torch.tensor([0, 1, 3, 0]), "class 3, but num_labels is 3: classes are 0 to 2"),
        ({"num_labels": 3}, torch.tensor([0, -1, 2, 0]), "class -1, but num_labels is 3"),
        ({"num_labels": 3}, torch.tensor(SEVERAL), r"4 whole numbers, one class per image, got \(4, 3\) of int64"),
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            torch.zeros(4, 2),
            r"must be \(4, 3\) for multi_label_classification with num_labels=3, got \(4, 2\) of float32",
        ),
        ({"num_labels": 3, "problem_type": "regression"}, torch.zeros(4), r"must be \(4, 3\) for regression"),
        ({"num_labels": 1}, torch.zeros(4, 3), r"must be \(4, 1\) for regression with num_labels=1"),
        ({"num_labels": 0}, torch.zeros(4, dtype=torch.long), "num_labels is 0, so there is no classifier"),
        (
            {"num_labels": 3, "problem_type": "single_label_classification"},
            torch.zeros(4),
            r"whole numbers, one class per image, got \(4,\) of float32",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(fields: dict[str, Any], labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**fields)(IMAGES, labels=labels)


def test_a_problem_that_does_not_exist_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="problem_type must be one of regression, single_label_classification"):
        LadderSiameseConfig(backbone_config=tiny_resnet(), problem_type="ranking")


def test_the_check_of_labels_breaks_no_graph() -> None:
    model = classifier(num_labels=3)
    labels = torch.tensor([0, 1, 2, 0])
    assert torch._dynamo.explain(model)(IMAGES, labels=labels).graph_break_count == 0


def test_freezing_the_base_model_leaves_the_classifier() -> None:
    model = classifier(num_labels=3)
    model.base_model.requires_grad_(False)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    assert LadderSiameseModel(model.config).base_model.config.model_type == "resnet"
