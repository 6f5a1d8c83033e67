"""Damaged shards, shards of different columns, and what of a shard is not used."""

import itertools
import json
from pathlib import Path

import datasets
import pytest

from helpers.stream_data import NumberViews, encoded, numbered, write_members, write_parquet, write_tar
from ladder_training.data.left_out import account_of
from ladder_training.data.sources import load_image_stream
from ladder_training.errors import TrainingStopped, UserError
from ladder_training.loading.loader import ViewLoader
from ladder_training.views.two_views import TwoViewTransform

pytestmark = pytest.mark.usefixtures("own_cache")
SHARDS, EACH = 6, 8


def shards(folder: Path, damage: str | None, which: int = 2) -> Path:
    """Six shards of eight images, one of them damaged in one way."""
    for shard in range(SHARDS):
        members: dict[str, bytes] = {}
        for number in range(shard * EACH, (shard + 1) * EACH):
            members[f"{number:03d}.jpg"] = encoded(24, number)
            label = b"one" if damage == "cls" and shard == which and number % EACH == 3 else b"%d" % (number % 3)
            extra = b"{nonsense" if damage == "json" and shard == which and number % EACH == 3 else b'{"note": 1}'
            members[f"{number:03d}.cls"], members[f"{number:03d}.json"] = label, extra
        folder.mkdir(exist_ok=True)
        write_members(folder / f"a-{shard}.tar", members)
    file = folder / f"a-{which}.tar"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:9000])
    if damage == "no archive":
        file.write_bytes(b"<html>hunter2</html>" * 100)
    return folder


def bad_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("which", [2, 0])
@pytest.mark.parametrize("damage", ["cut", "cls", "json", "no archive"])
def test_a_damaged_shard_is_skipped_named_and_counted_once_and_resuming_is_exact(
    tmp_path: Path, damage: str, which: int
) -> None:
    folder = shards(tmp_path / "set", damage, which)

    def loader() -> ViewLoader:
        stream = load_image_stream(folder, streaming=True)
        options = {"batch_size": 4, "shuffle_buffer": 4, "max_bad_fraction": 0.1}
        return ViewLoader(stream, TwoViewTransform(size=16), bad_images_file=tmp_path / "bad.jsonl", **options)

    first = loader()
    batches, states = [], []
    for batch in itertools.islice(first, 14):
        batches.append(batch["pixel_values"])
        states.append(json.loads(json.dumps(first.state_dict())))
    (line,) = bad_lines(tmp_path / "bad.jsonl")
    assert line["source"] == str(folder / f"a-{which}.tar")
    assert "the rest of this shard cannot be read" in line["reason"]
    assert "hunter2" not in json.dumps(line)
    assert "one" not in line["reason"]
    assert 1 <= first.count.bad <= 2
    for cut in (0, 5, 9):
        again = loader()
        again.load_state_dict(states[cut])
        for batch, expected in zip(again, batches[cut + 1 :], strict=False):
            assert (batch["pixel_values"] == expected).all()


def test_the_same_limit_holds_for_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path / "set", "cut")
    stream = load_image_stream(folder, streaming=True)
    loader = ViewLoader(stream, TwoViewTransform(size=16), batch_size=4, shuffle_buffer=4, max_bad_fraction=0.0)
    with pytest.raises(TrainingStopped, match=r"a-2\.tar.*the rest of this shard cannot be read"):
        list(itertools.islice(loader, 20))


@pytest.mark.parametrize("damage", ["cut", "cls"])
def test_without_streaming_the_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    folder = shards(tmp_path / "set", damage)
    with pytest.raises(UserError, match=r"a-2\.tar: cannot be read as webdataset"):
        load_image_stream(folder)


def test_a_parquet_file_that_cannot_be_opened_is_left_out_of_a_stream_and_counted(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", numbered(40), 4)
    (folder / "part-001.parquet").write_bytes(b"PAR1 no more")
    stream = load_image_stream(folder, streaming=True)
    assert "left out: 1 files that cannot be opened" in account_of(stream).lines()[-1]
    loader = ViewLoader(
        stream, NumberViews(), batch_size=4, max_bad_fraction=0.1, bad_images_file=tmp_path / "bad.jsonl"
    )
    assert loader.count.bad == 1
    (line,) = bad_lines(tmp_path / "bad.jsonl")
    assert line["key"] == str(folder / "part-001.parquet")
    assert len(next(iter(loader))["pixel_values"]) == 4
    with pytest.raises(UserError, match=r"part-001\.parquet: cannot be read as parquet"):
        load_image_stream(folder)


def test_a_damaged_page_ends_its_row_group_only(tmp_path: Path) -> None:
    import pyarrow.parquet

    folder = write_parquet(tmp_path / "set", numbered(60), 2)
    file = folder / "part-001.parquet"
    column = pyarrow.parquet.read_metadata(file).row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    file.write_bytes(bytes(data))
    loader = ViewLoader(
        load_image_stream(folder, streaming=True),
        NumberViews(),
        batch_size=5,
        shuffle_buffer=5,
        max_bad_fraction=0.2,
        bad_images_file=tmp_path / "bad.jsonl",
    )
    seen = {int(n) for batch in itertools.islice(loader, 10) for n in batch["pixel_values"].flatten()}
    assert len(seen) >= 45
    (line,) = bad_lines(tmp_path / "bad.jsonl")
    assert line["source"] == str(file)


@pytest.mark.parametrize("streaming", [False, True])
def test_files_of_different_columns_are_read_with_those_that_all_have(tmp_path: Path, streaming: bool) -> None:
    first, second = numbered(6), numbered(12).select(range(6, 12))
    first.add_column("caption", ["x"] * 6).to_parquet(tmp_path / "a.parquet")
    second.add_column("size", [1] * 6).to_parquet(tmp_path / "b.parquet")
    dataset = load_image_stream(tmp_path, streaming=streaming)
    assert dataset.column_names == ["image"]
    rows = list(dataset.cast_column("image", datasets.Image(decode=False)))
    assert sorted(int(row["image"]["bytes"][2:]) for row in rows) == list(range(12))
    assert (
        "left out: 2 columns that not all files have, or not of the same type (caption, size)"
        in account_of(dataset).lines()
    )


def test_further_images_and_files_of_a_sample_are_named(tmp_path: Path) -> None:
    members = {}
    for clip in range(3):
        for frame in range(3):
            members[f"clip{clip}.frame{frame}.jpg"] = encoded(8, clip * 3 + frame)
    for clip in range(3, 7):
        members[f"clip{clip}.frame0.jpg"], members[f"clip{clip}.frame1.jpg"] = encoded(8, clip), encoded(8, clip + 9)
        members[f"clip{clip}.frame2.jpg"], members[f"clip{clip}.heic"] = encoded(8, clip + 20), b"x"
    members["clip7.frame0.jpg"], members["README"] = encoded(8, 50), b"x"
    kept = {name: data for name, data in members.items() if not name.endswith(".heic") or name >= "clip5"}
    write_members(tmp_path / "clips.tar", kept)
    lines = account_of(load_image_stream(tmp_path, streaming=True)).lines()
    assert "left out: 2 columns of images; name the one to use with --image_column (frame1.jpg, frame2.jpg)" in lines
    assert any("3 " in line and ".heic" in line and "README" in line for line in lines)


def test_a_label_that_holds_nothing_is_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("null")})
    rows = {"image": [{"bytes": encoded(8, n), "path": None} for n in range(4)], "label": [None] * 4}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    assert "left out: 1 label columns that hold nothing (label)" in account_of(load_image_stream(tmp_path)).lines()


def test_one_shard_alone_is_read_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [encoded(seed=n) for n in range(3)], labels="cls")
    account = account_of(load_image_stream(tmp_path / "a.tar"))
    assert (account.read_as, account.lines()) == ("1 .tar files, split train", [])
