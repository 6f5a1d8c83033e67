"""Neighbours, near duplicates and outliers against brute force."""

import sys
import types

import numpy as np
import pytest

from ladder_training.errors import UserError
from ladder_training.exploration import neighbours
from ladder_training.exploration.neighbours import NeighbourIndex, clusters, curved_map, flat_map


def random_vectors(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def cosines_of(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_neighbours_are_those_of_brute_force() -> None:
    vectors = random_vectors(200)
    index, expected = NeighbourIndex(vectors.copy()), cosines_of(vectors)
    np.fill_diagonal(expected, -2)
    for row in (0, 17, 199):
        found = index.like(row, 5)
        assert [other for other, _ in found] == np.argsort(-expected[row])[:5].tolist()
        assert [cosine for _, cosine in found] == pytest.approx(np.sort(expected[row])[::-1][:5].tolist(), abs=1e-5)


def test_a_large_set_is_searched_in_part_and_still_finds_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 100)
    centres = random_vectors(30, seed=1)
    vectors = np.repeat(centres, 40, axis=0) + 0.2 * random_vectors(1200, seed=2)
    index, expected = NeighbourIndex(vectors.copy()), cosines_of(vectors)
    np.fill_diagonal(expected, -2)
    hits = 0
    for one in range(0, 1200, 100):
        nearest = set(np.argsort(-expected[one])[:5].tolist())
        hits += len({row for row, _ in index.like(one, 5)} & nearest)
    assert hits > 0.9 * 5 * 12


@pytest.mark.parametrize("exact", [20_000, 50])
def test_near_duplicates_are_the_planted_pairs(exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched as a whole, and in parts as large sets are."""
    monkeypatch.setattr(neighbours, "EXACT", exact)
    vectors = random_vectors(100)
    vectors[40] = 3 * vectors[7]
    vectors[90] = vectors[12] + 0.01
    found = NeighbourIndex(vectors).near_duplicates(0.99, 10)
    assert [pair[:2] for pair in found] == [(7, 40), (12, 90)]
    assert found[0][2] == pytest.approx(1, abs=1e-5)


def test_the_outlier_is_the_one_that_is_alone() -> None:
    vectors = np.ones((50, 8), np.float32) + 0.05 * random_vectors(50, 8)
    vectors[33] = -1
    (row, cosine), *_ = NeighbourIndex(vectors).outliers(3)
    assert row == 33
    assert cosine < -0.9


def test_a_map_keeps_the_main_direction() -> None:
    vectors = 0.01 * random_vectors(60)
    vectors[:, 3] += np.linspace(-5, 5, 60)
    plane = flat_map(vectors)
    assert plane.min() == 0
    assert plane.max() == 1
    assert abs(np.corrcoef(plane[:, 0], np.arange(60))[0, 1]) > 0.999
    assert flat_map(vectors[:2]).shape == (2, 2)


def test_clusters_are_the_planted_groups() -> None:
    sizes = (30, 20, 10)
    centres = np.eye(3, 16, dtype=np.float32)
    vectors = np.concatenate([centres[[n]].repeat(size, 0) for n, size in enumerate(sizes)]) + 0.05 * random_vectors(60)
    found = clusters(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 3)
    assert found.tolist() == [0] * 30 + [1] * 20 + [2] * 10
    assert clusters(vectors[:2], 10).shape == (2,)


def test_a_curved_map_is_umaps_by_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake takes the place of umap-learn, which takes ten seconds to import."""
    asked: list[dict] = []

    class Umap:
        def __init__(self, **settings: object) -> None:
            asked.append(settings)

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2] * 7 - 3

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Umap))
    vectors = random_vectors(20)
    plane = curved_map(vectors)
    assert asked == [{"metric": "cosine", "random_state": 0}]
    assert plane.min(axis=0).tolist() == [0, 0] and plane.max(axis=0).tolist() == [1, 1]
    assert np.corrcoef(plane[:, 0], vectors[:, 0])[0, 1] > 0.9999
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match="pip install umap-learn"):
        curved_map(vectors)
