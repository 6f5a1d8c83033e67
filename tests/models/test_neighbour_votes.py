"""Leave-one-out kNN is the average of evaluations that each leave one image out, whatever the blocks."""

import numpy as np
import pytest
import torch

from ladder_training.errors import UserError
from ladder_training.models import neighbour_votes
from ladder_training.models.neighbour_votes import knn_accuracy, knn_votes, leave_one_out_accuracy


def features_and_labels(count: int = 41) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (count,), generator=generator)
    return torch.randn(count, 5, generator=generator) + torch.eye(3, 5)[labels], labels


@pytest.mark.parametrize("k", [1, 9, 40, 500])
def test_each_image_is_scored_by_all_the_others(k):
    features, labels = features_and_labels()
    others = torch.ones(len(labels), len(labels), dtype=torch.bool).fill_diagonal_(False)
    single = [
        knn_accuracy(features[rest], labels[rest], features[[index]], labels[[index]], k)
        for index, rest in enumerate(others)
    ]
    found = leave_one_out_accuracy(features, labels, k)
    assert found == pytest.approx(sum(single) / len(single))
    assert 0 < found < 1


@pytest.mark.parametrize(("block", "scored"), [(1, 7), (64, 7), (10**6, 3), (100, 1000)])
def test_blocks_do_not_change_leave_one_out_votes(monkeypatch, block, scored):
    features, labels = features_and_labels()
    whole = knn_votes(features, labels, None, k=4)
    monkeypatch.setattr(neighbour_votes, "BLOCK", block)
    monkeypatch.setattr(neighbour_votes, "SCORED_BLOCK", scored)
    torch.testing.assert_close(knn_votes(features, labels, None, k=4), whole)


def test_an_image_never_votes_for_itself():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    votes = knn_votes(features, torch.tensor([0, 1, 2]), None, k=1)
    assert votes.argmax(1).tolist()[:2] == [1, 0]
    assert votes[2, 2] == 0


def test_one_image_has_no_neighbour():
    with pytest.raises(UserError, match="at least two"):
        leave_one_out_accuracy(torch.ones(1, 2), torch.tensor([0]))


def knn_by_loops(features: np.ndarray, labels: np.ndarray, k: int, temperature: float) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for i, vector in enumerate(unit):
        similarity = unit @ vector
        others = [j for j in np.argsort(-similarity, kind="stable") if j != i][:k]
        votes = np.zeros(labels.max() + 1)
        for j in others:
            votes[labels[j]] += np.exp(similarity[j] / temperature)
        right += votes.argmax() == labels[i]
    return right / len(labels)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.1), (20, 0.07), (1000, 1.0)])
def test_leave_one_out_knn_against_loops(k, temperature) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    features = rng.normal(size=(60, 6)) + 1.5 * np.eye(4, 6)[labels]
    got = leave_one_out_accuracy(torch.tensor(features), torch.tensor(labels), k, temperature)
    assert got == pytest.approx(knn_by_loops(features, labels, k, temperature))
    assert 0.3 < got < 1
