"""Unreadable images: passed over, named once, counted, limited; the order of the good ones does not change."""

import errno
import itertools
import json
import multiprocessing

import datasets
import pytest
from PIL import Image, UnidentifiedImageError

from helpers.stream_data import NumberViews, encoded, numbered, numbers, write_tar
from ladder_training.data.sources import load_image_stream
from ladder_training.errors import BadImageError, TrainingStopped, UserError
from ladder_training.images.decode import decode_image
from ladder_training.loading.bad_images import BadImage, BadImageCount, BadImageFile, is_bad_image, one_line
from ladder_training.loading.loader import ViewLoader

SIZE = 60
BAD = frozenset({0, 7, 8, 9, 31, 59})


def order(dataset, count, **options):
    loader = ViewLoader(dataset, NumberViews(), **{"batch_size": 4, "max_bad_fraction": 0.5, **options})
    found = [n for batch in itertools.islice(loader, count) for n in numbers(batch)]
    loader.close()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shards", [0, 1, 5])
def test_the_good_ones_come_in_the_order_of_all_with_the_bad_ones_taken_out(shards, workers):
    def made(bad):
        dataset = numbered(SIZE, bad)
        return dataset.to_iterable_dataset(num_shards=shards) if shards else dataset

    options = {"num_workers": workers, "shuffle_buffer": 16}
    clean = order(made(frozenset()), 30, **options)
    found = order(made(BAD), 26, **options)
    good = [[n for n in clean[start : start + SIZE] if n not in BAD] for start in (0, SIZE)]
    if shards and workers:  # each worker makes its own chunks whole again, so only the order of its examples is kept
        assert len(set(found[:52])) == len(set(found[52:104])) == 52
        assert not BAD & set(found)
        return
    assert found[:52] == good[0][:52]  # 54 good images are 13 batches of four
    assert found[52:104] == good[1][:52]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shards", [0, 6])
def test_one_bad_image_does_not_make_the_training_process_copy_every_later_batch(shards, workers):
    size, bad = 600, frozenset({10})
    dataset = numbered(size, bad)
    dataset = dataset.to_iterable_dataset(num_shards=shards) if shards else dataset
    options = {"batch_size": 4, "num_workers": workers, "shuffle_buffer": 32, "max_bad_fraction": 0.5}
    loader = ViewLoader(dataset, NumberViews(), **options)
    state, seen, shared = None, [], []
    for number, batch in enumerate(itertools.islice(loader, 149)):
        seen += numbers(batch)
        # Only what a worker stacked lies in shared memory.
        shared.append(batch["pixel_values"].is_shared())
        if number == 70:
            state = loader.state_dict()
    loader.close()
    assert len(set(seen)) == 149 * 4
    # Of a map-style set, chunks that workers had begun are copied; of a stream, what is left when workers finish.
    most = 2 * workers + 2 if not shards else workers + 1
    assert shared.count(False) <= most, shared
    again = ViewLoader(dataset, NumberViews(), **options)
    again.load_state_dict(state)
    assert [n for batch in itertools.islice(again, 78) for n in numbers(batch)] == seen[71 * 4 :]
    again.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shards", [0, 4])
def test_resuming_anywhere_among_many_bad_images_gives_the_same_batches(shards, workers):
    bad = frozenset(n for n in range(240) if n % 5 in (0, 3) or 60 < n < 90)
    dataset = numbered(240, bad)
    dataset = dataset.to_iterable_dataset(num_shards=shards) if shards else dataset
    options = {"batch_size": 4, "num_workers": workers, "shuffle_buffer": 16, "max_bad_fraction": 0.9}
    loader = ViewLoader(dataset, NumberViews(), **options)
    states, found = [loader.state_dict()], []
    for batch in itertools.islice(loader, 40):
        found.append(numbers(batch))
        states.append(json.loads(json.dumps(loader.state_dict())))
    loader.close()
    for number in range(0, 36, 7):
        again = ViewLoader(dataset, NumberViews(), **options)
        again.load_state_dict(states[number])
        assert [numbers(batch) for batch in itertools.islice(again, 4)] == found[number : number + 4]
        again.close()


def test_positions_left_over_stand_in_for_bad_images_so_that_a_pass_keeps_its_steps():
    # 60 images, batches of 8 accumulated twice: 3 steps use 48, and 12 positions are left over for 6 bad images.
    loader = ViewLoader(numbered(SIZE, BAD), NumberViews(), batch_size=8, accumulation=2, max_bad_fraction=0.5)
    iterator = iter(loader)
    first = [n for _ in range(6) for n in numbers(next(iterator))]
    assert loader.passes == 1.0
    assert len(set(first)) == 48
    assert not BAD & set(first)


@pytest.mark.parametrize("streaming", [False, True])
def test_each_is_named_once_across_passes_and_resumes(tmp_path, streaming):
    file = tmp_path / "run" / "bad_images.jsonl"
    dataset = numbered(SIZE, BAD)
    dataset = dataset.to_iterable_dataset(num_shards=3) if streaming else dataset
    options = {"batch_size": 4, "max_bad_fraction": 0.5, "bad_images_file": file}
    loader = ViewLoader(dataset, NumberViews(), **options)
    list(itertools.islice(loader, 31))
    state = loader.state_dict()
    again = ViewLoader(dataset, NumberViews(), **options)
    again.load_state_dict(state)
    list(itertools.islice(again, 31))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(records) == len(BAD)
    assert all(set(record) == {"source", "key", "reason"} for record in records)
    assert {record["reason"] for record in records} == {"marked as broken"}
    if not streaming:
        assert {record["key"] for record in records} == {f"row {n}" for n in BAD}


def test_real_broken_files_are_named_by_path(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(30):
        (folder / f"good-{number:02d}.jpg").write_bytes(encoded(seed=number))
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(encoded(40)[:-600])
    (folder / "page.jpg").write_text("<html>not found</html>")
    (folder / "folder.png").mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere")
    broken = {"zero.jpg", "cut.jpg", "page.jpg", "folder.png", "link.jpg"}

    def transform(image, seed=None):
        return {"pixel_values": decode_image(image).mean(axis=(0, 1))}

    for streaming in (False, True):
        file = tmp_path / f"bad-{streaming}.jsonl"
        dataset = load_image_stream(folder, streaming=streaming)
        loader = ViewLoader(dataset, transform, batch_size=5, max_bad_fraction=0.5, bad_images_file=file)
        list(itertools.islice(loader, 12))
        records = [json.loads(line) for line in file.read_text().splitlines()]
        assert {record["key"].rsplit("/", 1)[-1] for record in records} == broken
        assert all(record["key"].startswith(str(folder)) and record["reason"] for record in records)
        assert loader.count.bad >= len(broken)


def test_webdataset_examples_are_named_by_shard_and_key(tmp_path):
    write_tar(tmp_path / "a-000.tar", [encoded(seed=n) if n != 3 else b"no image" for n in range(12)])

    def transform(image, seed=None):
        return {"pixel_values": decode_image(image).mean(axis=(0, 1))}

    for streaming in (False, True):
        file = tmp_path / f"bad-{streaming}.jsonl"
        dataset = load_image_stream(tmp_path / "a-000.tar", streaming=streaming, cache_dir=str(tmp_path / "cache"))
        loader = ViewLoader(dataset, transform, batch_size=5, max_bad_fraction=0.5, bad_images_file=file)
        list(itertools.islice(loader, 4))
        (record,) = [json.loads(line) for line in file.read_text().splitlines()]
        assert record["key"] == "00003"
        assert record["source"].endswith("a-000.tar")


def test_the_run_stops_past_the_limit_and_names_the_file(tmp_path):
    file = tmp_path / "bad_images.jsonl"
    dataset = numbered(200, frozenset(range(0, 200, 10)))
    loader = ViewLoader(dataset, NumberViews(), batch_size=4, max_bad_fraction=0.05, bad_images_file=file)
    with pytest.raises(TrainingStopped, match=r"11 of the \d+ images .* 0.05 .*bad_images\.jsonl"):
        list(itertools.islice(loader, 100))
    # Ten per cent are bad, so the eleventh shows before the pass ends, and not by the chance of a bad start.
    assert loader.count.seen > 50
    assert len(file.read_text().splitlines()) >= 11


def test_the_limit_is_not_passed_by_exactly_that_share():
    dataset = numbered(200, frozenset(range(0, 200, 10)))
    assert len(order(dataset, 180, max_bad_fraction=0.1)) == 720


def test_a_data_set_of_bad_images_only_ends(tmp_path):
    with pytest.raises((TrainingStopped, UserError)):
        order(numbered(40, frozenset(range(40))), 1, max_bad_fraction=1.0)
    stream = numbered(40, frozenset(range(40))).to_iterable_dataset(num_shards=2)
    with pytest.raises((TrainingStopped, UserError)):
        order(stream, 1, max_bad_fraction=1.0)


def test_counting_needs_a_sample():
    count = BadImageCount(0.01, size=None)
    count.count(19, 19)  # 10 + 3 * sqrt(10) = 19.5 may be bad of the first thousand by chance
    with pytest.raises(TrainingStopped):
        count.count(1, 1)
    long = BadImageCount(0.01, size=None)
    for _ in range(100):
        long.count(1000, 9)
    with pytest.raises(TrainingStopped):
        for _ in range(100):
            long.count(1000, 13)


def test_a_share_below_the_limit_never_stops_a_small_set_and_one_above_does():
    small = BadImageCount(0.1, size=50)
    for _ in range(50):
        small.count(5, 5)
        small.count(45, 0)
    with pytest.raises(TrainingStopped):
        small.count(6, 6)
    with pytest.raises(TrainingStopped):
        BadImageCount(0, size=50).count(1, 1)


def test_a_limit_out_of_range_is_refused():
    with pytest.raises(UserError, match="max_bad_fraction"):
        BadImageCount(1.5)


@pytest.mark.parametrize(
    "error",
    [
        BadImageError("cut off"),
        UnidentifiedImageError("cannot identify image file"),
        OSError("image file is truncated"),
        FileNotFoundError(errno.ENOENT, "gone"),
        IsADirectoryError(errno.EISDIR, "a folder"),
        PermissionError(errno.EACCES, "forbidden"),
        EOFError("no more"),
        SyntaxError("broken PNG file"),
        Image.DecompressionBombError("too large"),
    ],
)
def test_the_fault_of_an_image(error):
    assert is_bad_image(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "too many open files"),
        OSError(errno.EIO, "disk"),
        ConnectionResetError("network"),
        TimeoutError("network"),
        MemoryError(),
        ValueError("a wrong setting"),
        TypeError("a bug"),
        KeyError("image"),
        AttributeError("a bug"),
        SyntaxError("invalid syntax", ("module.py", 1, 1, "x =")),
    ],
)
def test_not_the_fault_of_an_image(error):
    assert not is_bad_image(error)


def test_reasons_are_one_short_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300


def _write(path, start):
    file = BadImageFile(path)
    for number in range(start, start + 60):
        file.add([BadImage("set", f"row {number}", "broken")])


def test_processes_share_the_file_without_doubles(tmp_path):
    path = tmp_path / "bad_images.jsonl"
    processes = [multiprocessing.get_context("fork").Process(target=_write, args=(path, start)) for start in (0, 30)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert sorted(keys) == sorted(f"row {number}" for number in range(90))


def test_a_line_cut_short_by_a_kill_is_repaired(tmp_path):
    path = tmp_path / "bad_images.jsonl"
    BadImageFile(path).add([BadImage("set", "row 1", "broken")])
    with path.open("a") as file:
        file.write('{"source": "set", "key": "ro')
    BadImageFile(path).add([BadImage("set", "row 1", "broken"), BadImage("set", "rów 2", "bröken")])
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["row 1", "rów 2"]


def test_datasets_itself_never_decodes(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("decoded by datasets")

    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    assert len(order(numbered(20), 3)) == 12
    assert len(order(numbered(20).to_iterable_dataset(num_shards=2), 3)) == 12
