"""Continuing anywhere gives the batches of an unbroken run, bit for bit, and decodes nothing that was consumed."""

import itertools
import json
import random

import datasets
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.stream_data import NumberViews, numbered, write_parquet
from ladder_training.data.mixing import mix_streams
from ladder_training.errors import TrainingStopped, UserError
from ladder_training.loading.loader import ViewLoader

SIZE = 103
BAD = frozenset(range(5, SIZE, 13))
STEPS = 40  # three passes and more


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = write_parquet(tmp_path_factory.mktemp("resume"), numbered(SIZE, BAD), 5)

    def parquet():
        return datasets.load_dataset(
            "parquet",
            data_files=str(folder / "*.parquet"),
            split="train",
            streaming=True,
            batch_size=5,
            cache_dir=str(folder / "cache"),
        )

    def filtered():
        undecoded = parquet().cast_column("image", datasets.Image(decode=False))
        return undecoded.filter(lambda image: image["bytes"] != b"ok7", input_columns=["image"])

    def parts(streaming):
        made = [numbered(SIZE, BAD), numbered(31)]
        return [part.to_iterable_dataset(num_shards=3) for part in made] if streaming else made

    return {
        "map": lambda: numbered(SIZE, BAD),
        "one shard": lambda: numbered(SIZE, BAD).to_iterable_dataset(num_shards=1),
        "shards": lambda: numbered(SIZE, BAD).to_iterable_dataset(num_shards=11),
        "parquet": parquet,
        "filtered": filtered,
        "mixture": lambda: mix_streams(parts(False), [0.5, 0.5]),
        "mixed streams": lambda: mix_streams(parts(True)),
        "weighted streams": lambda: mix_streams(parts(True), [0.4, 0.6]),
    }


KINDS = ("map", "one shard", "shards", "parquet", "filtered", "mixture", "mixed streams", "weighted streams")


def plain(states):
    """States without what `datasets` keeps for itself, which may describe one place in two ways."""
    if isinstance(states, dict):
        return {name: plain(value) for name, value in states.items() if name != "stream"}
    return [plain(value) for value in states] if isinstance(states, list) else states


def run(dataset, count, state=None, **options):
    options = {"batch_size": 6, "accumulation": 2, "seed": 3, "shuffle_buffer": 19, "max_bad_fraction": 0.5, **options}
    loader = ViewLoader(dataset, NumberViews(), **options)
    if state is not None:
        loader.load_state_dict(json.loads(json.dumps(state)))
    batches, states = [], []
    for batch in itertools.islice(loader, count):
        batches.append({name: value.tolist() for name, value in batch.items()})
        states.append(loader.state_dict())
    loader.close()
    return batches, states


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_continuing_after_every_batch_is_exact(kinds, kind, world_size):
    options = {"rank": world_size - 1, "world_size": world_size}
    batches, states = run(kinds[kind](), STEPS, **options)
    for cut in random.Random(kind).sample(range(STEPS), 12):
        rest, later = run(kinds[kind](), STEPS - 1 - cut, states[cut], **options)
        assert rest == batches[cut + 1 :], (kind, cut)
        assert plain(later) == plain(states[cut + 1 :]), (kind, cut)


@pytest.mark.parametrize("kind", KINDS)
def test_continuing_with_workers_is_exact(kinds, kind):
    batches, states = run(kinds[kind](), STEPS, num_workers=2)
    for cut in random.Random(kind).sample(range(STEPS), 3):
        rest, later = run(kinds[kind](), STEPS - 1 - cut, states[cut], num_workers=2)
        assert rest == batches[cut + 1 :], (kind, cut)
        assert plain(later) == plain(states[cut + 1 :]), (kind, cut)


def test_map_style_continues_with_another_number_of_workers(kinds):
    batches, states = run(kinds["map"](), STEPS)
    assert run(kinds["map"](), STEPS - 18, states[17], num_workers=2)[0] == batches[18:]


def test_a_stream_refuses_another_number_of_workers_but_none_and_one_read_alike(kinds):
    batches, states = run(kinds["shards"](), STEPS)
    assert run(kinds["shards"](), STEPS - 18, states[17], num_workers=1)[0] == batches[18:]
    with pytest.raises(UserError, match="workers was 1, now 2"):
        run(kinds["shards"](), 1, states[17], num_workers=2)


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 5}, {"rank": 1, "world_size": 2}, {"accumulation": 1}])
def test_a_state_of_another_setting_is_refused(kinds, change):
    _, states = run(kinds["map"](), 3)
    with pytest.raises(UserError, match="cannot continue"):
        run(kinds["map"](), 1, states[-1], **change)


def test_a_state_of_another_data_set_is_refused(kinds):
    _, states = run(kinds["map"](), 3)
    with pytest.raises(UserError, match="images was 103, now 100"):
        run(numbered(100), 1, states[-1])


@pytest.mark.parametrize("kind", ["map", "shards"])
def test_iterating_again_goes_on_from_the_same_place(kinds, kind):
    batches, _ = run(kinds[kind](), 20)
    loader = ViewLoader(
        kinds[kind](),
        NumberViews(),
        batch_size=6,
        accumulation=2,
        seed=3,
        shuffle_buffer=19,
        max_bad_fraction=0.5,
        num_workers=1,
    )
    found = list(itertools.islice(loader, 7)) + list(itertools.islice(loader, 13))
    loader.close()
    assert [{name: value.tolist() for name, value in batch.items()} for batch in found] == batches


class Counting(NumberViews):
    calls = 0

    def __call__(self, image, seed=None):
        Counting.calls += 1
        return super().__call__(image, seed)


@pytest.mark.parametrize("streaming", [False, True])
def test_continuing_decodes_nothing_that_was_consumed(streaming):
    dataset = numbered(400).to_iterable_dataset(num_shards=4) if streaming else numbered(400)
    options = {"batch_size": 8, "shuffle_buffer": 64}
    loader = ViewLoader(dataset, NumberViews(), **options)
    list(itertools.islice(loader, 37))
    state = loader.state_dict()
    again = ViewLoader(dataset, Counting(), **options)
    again.load_state_dict(state)
    Counting.calls = 0
    next(iter(again))
    assert Counting.calls == 8


class Ready(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([{"pixel_values": torch.tensor([index])} for index in range(50)])


def test_a_torch_stream_continues_too():
    def run_ready(count, state=None):
        loader = ViewLoader(Ready(), batch_size=4, shuffle_buffer=9)
        if state:
            loader.load_state_dict(state)
        return [(b["pixel_values"].tolist(), loader.state_dict()) for b in itertools.islice(loader, count)]

    full = run_ready(30)
    for cut in (0, 5, 11, 12, 20):
        assert run_ready(29 - cut, full[cut][1]) == full[cut + 1 :]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(12, 90),
    shards=st.integers(0, 9),
    batch_size=st.integers(1, 6),
    accumulation=st.integers(1, 2),
    buffer=st.integers(1, 40),
    world_size=st.integers(1, 3),
    cut=st.integers(0, 24),
    seed=st.integers(0, 1000),
)
@example(size=12, shards=0, batch_size=6, accumulation=1, buffer=1, world_size=2, cut=0, seed=0)
def test_continuing_is_exact_whatever_the_sizes(size, shards, batch_size, accumulation, buffer, world_size, cut, seed):
    bad = frozenset(np.random.default_rng(seed).choice(size, size // 10, replace=False).tolist())
    dataset = numbered(size, bad)
    if shards:
        dataset = dataset.to_iterable_dataset(num_shards=min(shards, size))
    options = {
        "batch_size": batch_size,
        "accumulation": accumulation,
        "shuffle_buffer": buffer,
        "world_size": world_size,
        "rank": seed % world_size,
        "seed": seed,
        "max_bad_fraction": 1.0,
    }
    try:
        batches, states = run(dataset, 26, **options)
    except UserError as error:
        assert "fewer than one" in str(error)
        return
    except TrainingStopped as error:
        # Broken images can leave a process less than a batch of its share; nothing else may stop it.
        assert "fewer than one batch" in str(error)
        assert not shards and size // world_size - len(bad) < batch_size
        return
    rest, later = run(dataset, 25 - cut, states[cut], **options)
    assert rest == batches[cut + 1 :]
    assert plain(later) == plain(states[cut + 1 :])
