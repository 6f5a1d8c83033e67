"""Neighbours, near duplicates and outliers against brute force."""

import numpy as np
import pytest

from ladder_training.exploration import neighbours
from ladder_training.exploration.neighbours import NeighbourIndex, flat_map


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


def test_near_duplicates_are_the_planted_pairs() -> None:
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
