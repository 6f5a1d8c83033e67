"""A process's place, and positions that were saved before places were records."""

import itertools
import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from helpers.stream_data import NumberViews, numbered, numbers
from ladder_training.errors import UserError
from ladder_training.loading.loader import ViewLoader
from ladder_training.loading.place import Place

OLD = Path(__file__).parents[1] / "fixtures" / "old_positions.json"
"""Positions after five batches, and the three batches after them, written before `Place` (datasets 5.2)."""


@pytest.mark.parametrize(("rank", "world_size"), [(0, 0), (2, 2), (-1, 2)])
def test_a_place_outside_its_world_is_refused(rank: int, world_size: int) -> None:
    with pytest.raises(UserError, match=r"world_size must be at least 1|rank must be in 0 \.\.\. 1, not"):
        Place(0, rank, world_size)


def test_a_place_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Place().rank = 1  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_a_position_that_was_saved_before_places_were_records_is_resumed_exactly(kind: str) -> None:
    saved = json.loads(OLD.read_text(encoding="utf-8"))[kind]
    dataset = numbered(50) if kind == "map" else numbered(50).to_iterable_dataset(num_shards=5)
    options = {"accumulation": 2} if kind == "map" else {}
    loader = ViewLoader(dataset, NumberViews(), batch_size=4, seed=3, rank=1, world_size=2, shuffle_buffer=6, **options)
    whole = [numbers(batch) for batch in itertools.islice(loader, 8)]
    loader.load_state_dict(saved["state"])
    assert loader.state_dict() == saved["state"]
    assert [numbers(batch) for batch in itertools.islice(loader, 3)] == saved["next"] == whole[5:]
