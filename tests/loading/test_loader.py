"""What `ViewLoader` hands out: every image once per pass, on one process or several, in a new order each pass."""

import itertools
import random

import datasets
import numpy as np
import pytest
import torch

from helpers.stream_data import NumberViews, numbered, numbers
from ladder_training.data.mixing import mix_streams
from ladder_training.data.order import PassOrders, stable_hash, view_seed
from ladder_training.errors import UserError
from ladder_training.loading.loader import ViewLoader
from ladder_training.loading.map_source import apportion
from ladder_training.loading.place import Place
from ladder_training.loading.shards import deal_shards
from ladder_training.loading.stream_source import StreamPart


def take(dataset, count, **options):
    loader = ViewLoader(dataset, NumberViews(), **options)
    batches = list(itertools.islice(loader, count))
    loader.close()
    return batches


def streams(size, shards):
    return numbered(size).to_iterable_dataset(num_shards=shards)


def test_hash_is_stable_and_views_depend_on_seed_pass_and_image_only():
    assert stable_hash("a", 1) == stable_hash("a", 1) != stable_hash("a", "1")
    assert stable_hash("ladder", 7) == 6334814503436447606  # runs of today go on tomorrow
    seeds = {view_seed(s, p, i) for s in range(3) for p in range(3) for i in range(50)}
    assert len(seeds) == 450
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_pass_orders_are_permutations_that_differ_and_come_back():
    orders = PassOrders(100, 5, 0)
    first = [orders.of(p).copy() for p in range(4)]
    assert all(sorted(order) == list(range(100)) for order in first)
    assert len({tuple(order) for order in first}) == 4
    assert all((orders.of(p) == first[p]).all() for p in (3, 0, 2, 1))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_map_style_batches_do_not_depend_on_workers(workers):
    reference = take(numbered(50), 12, batch_size=4, accumulation=2, seed=3)
    found = take(numbered(50), 12, batch_size=4, accumulation=2, seed=3, num_workers=workers)
    for one, other in zip(reference, found, strict=True):
        assert one.keys() == other.keys() == {"pixel_values", "seed"}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_map_style_pass_drops_less_than_one_global_batch_and_passes_differ():
    loader = ViewLoader(numbered(50), NumberViews(), batch_size=4, accumulation=3)
    assert loader.batches_per_pass == 12  # floor(50 / 12) optimizer steps of 3
    iterator = iter(loader)
    orders = [[n for _ in range(12) for n in numbers(next(iterator))] for _ in range(3)]
    assert all(len(set(order)) == 48 for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert loader.passes == 3.0


def test_views_of_an_image_differ_by_pass_and_not_by_process():
    def seeds(**place):
        batches = take(numbered(24), 24 // place.get("world_size", 1) // 4 * 2, batch_size=4, **place)
        return [(n, s) for batch in batches for n, s in zip(numbers(batch), batch["seed"].tolist(), strict=True)]

    alone = set(seeds())
    assert len(alone) == 48
    assert set(seeds(rank=0, world_size=2)) | set(seeds(rank=1, world_size=2)) == alone


# Worker processes are slow to start: they are tried where sharing differs in kind.
PLACES = [(world_size, shards, 0) for world_size in (1, 2, 3) for shards in (None, 1, 2, 3, 8, 11)]
PLACES += [(world_size, shards, 2) for world_size in (2, 3) for shards in (None, 1, 8)]


@pytest.mark.parametrize(("world_size", "shards", "workers"), PLACES)
def test_processes_together_see_every_image_once_per_pass(world_size, shards, workers):
    size = 48
    dataset = numbered(size) if shards is None else streams(size, shards)
    seen = []
    for rank in range(world_size):
        # One image per batch: with whole shards of unequal length, processes have unequal numbers of images.
        loader = ViewLoader(
            dataset,
            NumberViews(),
            batch_size=1,
            rank=rank,
            world_size=world_size,
            num_workers=workers,
            shuffle_buffer=7,
        )
        iterator = iter(loader)
        mine = []
        while True:
            batch = next(iterator)
            if loader.state_dict()["position"].get("pass", 0) > 0 or loader.passes > 1:
                break
            mine.extend(numbers(batch))
            if shards is None and loader.passes == 1:
                break
        loader.close()
        seen.append(mine)
    assert sorted(itertools.chain(*seen)) == list(range(size))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_that_share_one_shard_get_equally_many(world_size):
    size, batch = 50, 4
    counts = []
    for rank in range(world_size):
        loader = ViewLoader(streams(size, 1), NumberViews(), batch_size=batch, rank=rank, world_size=world_size)
        iterator, count = iter(loader), 0
        while next(iterator) is not None and loader.state_dict()["position"]["pass"] == 0:
            count += 1
        counts.append(count)
    assert counts == [size // world_size // batch] * world_size


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 13])
def test_shards_are_dealt_without_overlap(shards, world_size, workers):
    lengths = {shard: 5 + shard * 3 % 7 for shard in range(shards)}
    taken = []
    for rank in range(world_size):
        for worker in range(workers):
            for unit in deal_shards(list(range(shards)), Place(0, rank, world_size), worker, workers):
                examples = [(shard, index) for shard in unit.shards for index in range(lengths[shard])]
                whole = len(examples) // unit.group * unit.group
                taken.extend(examples[:whole][unit.offset :: unit.step])
    assert len(taken) == len(set(taken))
    assert sum(lengths.values()) - len(taken) < world_size


def test_a_stream_is_shuffled_differently_in_each_pass_over_shards_and_in_blocks():
    loader = ViewLoader(streams(96, 6), NumberViews(), batch_size=8, shuffle_buffer=16)
    iterator = iter(loader)
    orders = [[n for _ in range(12) for n in numbers(next(iterator))] for _ in range(3)]
    assert all(sorted(order) == list(range(96)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    # Eight shards are read in turn, so the first batch holds images of at least four of the six.
    assert len({n // 16 for n in orders[0][:8]}) >= 4
    # In a file sorted by class, neighbours come apart.
    assert np.abs(np.diff(orders[0])).mean() > 15


@pytest.mark.parametrize("shards", [64, 65, 70, 129, 130])
def test_many_shards_are_cut_by_halves_and_are_the_shards_of_datasets(shards):
    stream = streams(200, shards)
    part = StreamPart(stream, None, False)
    for shard in range(shards):
        reader = part.open(shard, None)
        found = [example["image"]["path"] for example in iter(reader.read, None)]
        undecoded = stream.cast_column("image", datasets.Image(decode=False))
        assert found == [row["image"]["path"] for row in undecoded.shard(num_shards=shards, index=shard)]


def test_a_stream_already_shuffled_or_split_is_taken_as_it_was():
    plain = take(streams(48, 4), 12, batch_size=4, shuffle_buffer=8)
    shuffled = take(streams(48, 4).shuffle(seed=1, buffer_size=10), 12, batch_size=4, shuffle_buffer=8)
    assert [numbers(b) for b in plain] == [numbers(b) for b in shuffled]
    # accelerate and split_dataset_by_node would shard a second time: 12 of 48 instead of 24
    from datasets.distributed import split_dataset_by_node

    split = split_dataset_by_node(streams(48, 4), rank=1, world_size=2)
    found = take(split, 6, batch_size=4, rank=1, world_size=2)
    assert len({n for b in found for n in numbers(b)}) == 24
    hidden = streams(48, 4).shuffle(seed=1).filter(lambda example: True)
    with pytest.raises(UserError, match=r"without \.shuffle\(\)"):
        ViewLoader(hidden, NumberViews(), batch_size=4)


def test_memory_of_a_stream_is_bounded_by_its_buffer():
    read = 0

    def examples():
        nonlocal read
        for number in range(100_000):
            read += 1
            yield {"image": {"bytes": b"ok%d" % number, "path": None}}

    features = datasets.Features({"image": datasets.Image()})
    stream = datasets.IterableDataset.from_generator(examples, features=features)
    take(stream, 3, batch_size=4, shuffle_buffer=50)
    assert read <= 51


def test_ready_tensors_pass_through_map_style_and_iterable():
    class Ready(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return {"pixel_values": torch.full((2, 3), float(index)), "view_flips": torch.tensor([True, False])}

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([Ready()[index] for index in range(20)])

    for dataset in (Ready(), Endless()):
        for workers in (0, 2):
            loader = ViewLoader(dataset, batch_size=5, num_workers=workers)
            batches = list(itertools.islice(loader, 4))
            loader.close()
            assert batches[0]["pixel_values"].shape == (5, 2, 3)
            assert batches[0]["view_flips"].dtype == torch.bool
            seen = sorted(int(x) for b in batches for x in b["pixel_values"][:, 0, 0])
            assert seen == list(range(20))


def test_a_hub_data_set_of_tensors_passes_through():
    rows = {"pixel_values": [np.full((2, 3), i, dtype=np.float32) for i in range(12)]}
    dataset = datasets.Dataset.from_dict(rows).with_format("torch")
    batch = take_ready(dataset)
    assert batch["pixel_values"].shape == (4, 2, 3)


def take_ready(dataset):
    return next(iter(ViewLoader(dataset, batch_size=4)))


def test_images_without_a_transform_are_refused():
    with pytest.raises(UserError, match="pixel_values"):
        take_ready(numbered(12))


def test_a_transform_without_seed_is_seeded_and_leaves_global_generators_alone():
    def transform(image):
        return {"pixel_values": torch.rand(2) + random.random() + np.random.rand()}

    def run():
        return torch.cat(
            [b["pixel_values"] for b in itertools.islice(ViewLoader(numbered(8), transform, batch_size=4), 4)]
        )

    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = run()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
    torch.manual_seed(99)
    assert torch.equal(first, run())
    assert len(first.unique()) == first.numel()


def test_starting_workers_does_not_draw_from_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(numbered(8), 1, batch_size=4, num_workers=2)
    assert torch.equal(before, torch.get_rng_state())


def test_too_few_images_for_one_step_are_named_with_the_numbers():
    with pytest.raises(UserError, match=r"9 images are fewer than .* 2 per batch x 2 accumulated x 3 processes = 12"):
        ViewLoader(numbered(9), NumberViews(), batch_size=2, accumulation=2, world_size=3)
    loader = ViewLoader(streams(9, 3), NumberViews(), batch_size=10)
    with pytest.raises(UserError, match=r"9 images .* fewer than one batch of 10"):
        next(iter(loader))


@pytest.mark.parametrize(
    "option", [{"batch_size": 0}, {"batch_size": 2, "rank": 2}, {"batch_size": 2, "num_workers": -1}]
)
def test_numbers_out_of_range_are_refused(option):
    with pytest.raises(UserError):
        ViewLoader(numbered(9), NumberViews(), **option)


def test_an_unknown_image_column_names_those_that_exist():
    with pytest.raises(UserError, match=r"'photo'.*image"):
        ViewLoader(numbered(9), NumberViews(), batch_size=2, image_column="photo")


class Fails:
    def __init__(self, error):
        self.error = error

    def __call__(self, image, seed=None):
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_keep_their_type(workers):
    with pytest.raises(TypeError):
        next(iter(ViewLoader(numbered(9), Fails(TypeError("a bug")), batch_size=2, num_workers=workers)))
    with pytest.raises(UserError, match=r"^one line$"):
        next(iter(ViewLoader(numbered(9), Fails(UserError("one line")), batch_size=2, num_workers=workers)))


class Dies:
    def __call__(self, image, seed=None):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_reported():
    with pytest.raises(RuntimeError, match=r"data worker 0 .* died .*memory"):
        next(iter(ViewLoader(numbered(9), Dies(), batch_size=2, num_workers=1)))


def test_examples_of_different_shapes_are_named():
    def transform(image, seed=None):
        return {"pixel_values": torch.zeros(int(image["bytes"][2:]) + 1)}

    with pytest.raises(UserError, match="`pixel_values` differs"):
        next(iter(ViewLoader(numbered(4), transform, batch_size=4)))


def offset_numbers(first, size):
    rows = [{"bytes": b"ok%d" % i, "path": None} for i in range(first, first + size)]
    return datasets.Dataset.from_dict({"picture": rows}, features=datasets.Features({"picture": datasets.Image()}))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_mixture_without_weights_gives_every_image_once(streaming):
    parts = [numbered(30), offset_numbers(1000, 18)]
    if streaming:
        parts = [part.to_iterable_dataset(num_shards=3) for part in parts]
    batches = take(mix_streams(parts), 24, batch_size=4)
    for half in (batches[:12], batches[12:]):
        assert sorted(n for b in half for n in numbers(b)) == [*range(30), *range(1000, 1018)]


def test_weights_give_exact_shares_map_style_and_each_source_all_its_images_before_any_again():
    mixture = mix_streams([numbered(30), offset_numbers(1000, 10)], [1, 1])
    batches = take(mixture, 30, batch_size=4)
    passes = [[n for b in batches[k : k + 10] for n in numbers(b)] for k in (0, 10, 20)]
    assert [sum(n >= 1000 for n in one) for one in passes] == [20, 20, 20]
    small = [n for one in passes for n in one if n >= 1000]
    assert all(small.count(n) == 6 for n in range(1000, 1010))
    large = [n for one in passes for n in one if n < 1000]
    assert sorted(large) == sorted([*range(30)] * 2)


def test_weights_of_streams_are_probabilities():
    parts = [numbered(40).to_iterable_dataset(num_shards=4), offset_numbers(1000, 40).to_iterable_dataset(num_shards=2)]
    batches = take(mix_streams(parts, [0.75, 0.25]), 200, batch_size=4, shuffle_buffer=32)
    drawn = [n for b in batches for n in numbers(b)]
    share = sum(n < 1000 for n in drawn) / len(drawn)
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(drawn)) ** 0.5
    counts = [drawn.count(n) for n in range(40)]
    assert max(counts) - min(counts) <= 2  # each source goes through all its images before any again


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(UserError, match="weights"):
        mix_streams([numbered(4), numbered(4)], weights)


def test_apportioning_is_exact():
    assert apportion(10, [0.5, 0.3, 0.2]) == [5, 3, 2]
    assert sum(apportion(101, [1 / 3] * 3)) == 101


def _rank_main(rank, port, folder, results):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    from ladder_training.data.sources import load_image_stream

    found = {}
    for kind, workers in itertools.product(("map", "stream"), (0, 2)):
        dataset = load_image_stream(folder, streaming=kind == "stream", cache_dir=folder + "/cache")
        place = {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
        loader = ViewLoader(dataset, NumberViews(), batch_size=4, num_workers=workers, **place)
        found[kind, workers] = [n for batch in itertools.islice(loader, 8) for n in numbers(batch)]
        loader.close()
    results.put((rank, found))
    dist.barrier()
    dist.destroy_process_group()


def test_two_real_processes_see_each_image_once(tmp_path):
    import multiprocessing
    import socket

    (tmp_path / "set").mkdir()
    numbered(64).to_parquet(tmp_path / "set" / "train.parquet", batch_size=8)  # eight row groups: four each
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_rank_main, args=(rank, port, str(tmp_path / "set"), results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=240) for _ in processes)
    for process in processes:
        process.join(60)
    assert set(found[0]) == {("map", 0), ("map", 2), ("stream", 0), ("stream", 2)}
    for case in found[0]:
        assert not set(found[0][case]) & set(found[1][case])
        assert sorted(found[0][case] + found[1][case]) == list(range(64))
