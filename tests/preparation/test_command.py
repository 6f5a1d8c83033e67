"""`ladder prepare`: what is written is what training reads; it goes on where it stopped, and says what it left out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from helpers.full_disk import full_disk
from helpers.pictures import encode, natural_image
from ladder_training.cli.entry import main
from ladder_training.data.columns import without_decoding
from ladder_training.data.sources import load_image_stream, split_names
from ladder_training.errors import TooManyBadImages, UserError
from ladder_training.images.decode import decode_image
from ladder_training.preparation import split as split_module
from ladder_training.preparation.command import prepare
from ladder_training.preparation.options import PrepareOptions
from ladder_training.preparation.split import images_per_shard

pytestmark = pytest.mark.usefixtures("own_cache")
CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of three classes: 30 and 6 images of 48 x 64, two equal files in train, one of them also in test."""
    folder = tmp_path / "photos"
    for split, count in (("train", 30), ("test", 6)):
        for number in range(count):
            path = folder / split / CLASSES[number % 3] / f"{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(natural_image(48, 64, seed=number + 100 * (split == "test")), "JPEG", quality=92))
    shared = (folder / "train" / "cat" / "00.jpg").read_bytes()
    (folder / "train" / "dog" / "28.jpg").write_bytes(shared)
    (folder / "test" / "emu" / "05.jpg").write_bytes(shared)
    return folder


def asked(source: Path, output: Path, **options: Any) -> PrepareOptions:
    return PrepareOptions(**{"dataset": str(source), "output": str(output), "short_side": 32, "workers": 2, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path, split: str, streaming: bool) -> list[dict[str, Any]]:
    return list(without_decoding(load_image_stream(folder, split, streaming)))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_what_is_read_back(photos: Path, tmp_path: Path, kind: str, streaming: bool) -> None:
    output = tmp_path / "small"
    counts = prepare(asked(photos, output, format=kind))
    assert split_names(output) == ["train", "test"]
    for split, size in (("train", 30), ("test", 6)):
        dataset = load_image_stream(output, split, streaming)
        plain = {name: feature for name, feature in dataset.features.items() if not name.startswith("__")}
        assert plain == load_image_stream(photos, split).features
        assert dataset.features["label"].names == list(CLASSES)
        read = rows(output, split, streaming)
        assert len(read) == counts[split]["written"] == size
        source = without_decoding(load_image_stream(photos, split))
        wanted = [(Image.fromarray(decode_image(row["image"])).resize((43, 32)), row["label"]) for row in source]
        for row in read:
            shown = decode_image(row["image"])
            assert shown.shape == (32, 43, 3)
            # The nearest source, made small in another way, is the same picture, and has the same label.
            distances = [(np.abs(np.asarray(p).astype(float) - shown).mean(), label) for p, label in wanted]
            assert min(distances)[0] < 6
            assert row["label"] in {label for distance, label in distances if distance < 6}
    if kind == "parquet":
        paths = {row["image"]["path"] for row in rows(output, "train", streaming)}
        assert "train/cat/00.jpg" in paths


def test_unreadable_images_are_left_out_and_listed_and_duplicates_are_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "cat" / "03.jpg").write_bytes(b"<html>")
    (photos / "train" / "dog" / "link.jpg").symlink_to(tmp_path / "nowhere")
    counts = prepare(asked(photos, tmp_path / "all"))
    train = counts["train"]
    assert (train["images"], train["written"], train["unreadable"], train["duplicates"]) == (31, 29, 2, 1)
    assert train["also_in"] == {"test": 1}
    lines = [json.loads(line) for line in (tmp_path / "all" / "bad_images.jsonl").read_text().splitlines()]
    assert {Path(line["key"]).name: line["reason"] for line in lines} == {
        "03.jpg": "not an image",
        "link.jpg": "a broken symbolic link",
    }
    counts = prepare(asked(photos, tmp_path / "once", drop_duplicates=True))
    assert (counts["train"]["written"], counts["train"]["duplicates"]) == (28, 1)
    assert len(load_image_stream(tmp_path / "once")) == 28
    written = json.loads((tmp_path / "once" / "preparation.json").read_text())
    assert written["splits"] == counts


def test_the_result_does_not_depend_on_the_number_of_workers(photos: Path, tmp_path: Path) -> None:
    prepare(asked(photos, tmp_path / "one", workers=1, shard_images=7))
    prepare(asked(photos, tmp_path / "three", workers=3, shard_images=7))
    assert files(tmp_path / "one") == files(tmp_path / "three")
    assert sum(name.endswith(".parquet") for name in files(tmp_path / "one")) == 5 + 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_limit_of_unreadable_images_stops_it_and_a_larger_one_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, streaming: bool
) -> None:
    for name in ("train/cat/90.jpg", "train/dog/91.jpg"):
        (photos / name).write_text("<html>")
    options = {"shard_images": 7, "streaming": streaming}
    whole = prepare(asked(photos, tmp_path / "whole", **options))  # without a limit: leaving them out is its purpose
    assert whole["train"]["unreadable"] == 2
    output = tmp_path / "strict"
    words = ["prepare", "--dataset", photos, "--output", output, "--short_side", 32, "--shard_images", 7]
    words = [*map(str, words), *(["--streaming"] if streaming else [])]
    assert main([*words, "--max_bad_fraction", "0.01"]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ladder: stopped: ") and " cannot be read, more than the 0.01 that max_bad_fraction" in line
    assert "bad_images.jsonl" in line and "<html>" not in line
    listed = (output / "bad_images.jsonl").read_text().splitlines()
    assert listed and all(json.loads(entry)["reason"] == "not an image" for entry in listed)
    with pytest.raises(UserError, match="no images"):
        load_image_stream(output)
    made: list[int] = []
    prepared = split_module.prepare_image
    monkeypatch.setattr(split_module, "prepare_image", lambda *a: made.append(1) or prepared(*a))
    with pytest.raises(TooManyBadImages):  # the same command does not creep past the limit, shard by shard
        prepare(asked(photos, output, **options, max_bad_fraction=0.01))
    assert not made
    assert prepare(asked(photos, output, **options, max_bad_fraction=2 / whole["train"]["images"])) == whole
    assert len(made) < whole["train"]["images"] + whole["test"]["images"]  # whole shards are not made again
    assert files(output) == files(tmp_path / "whole")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_an_interrupted_preparation_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, streaming: bool
) -> None:
    options = {"format": kind, "shard_images": 7, "streaming": streaming, "drop_duplicates": True}
    whole = prepare(asked(photos, tmp_path / "whole", **options))
    output, write, prepared = tmp_path / "broken", split_module.write_shard, split_module.prepare_image
    written: list[str] = []

    def full_after_three(path: Path, *rest: Any) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        write(path, *rest)

    monkeypatch.setattr(split_module, "write_shard", full_after_three)
    with pytest.raises(UserError, match=r"train-00003\..*No space left on device"):
        prepare(asked(photos, output, **options))
    with pytest.raises(UserError, match="no images"):  # nothing takes the shards that are there for the data set
        load_image_stream(output)
    with pytest.raises(UserError, match="short_side was 32 and is 40"):
        prepare(asked(photos, output, **{**options, "short_side": 40}))
    made: list[int] = []
    monkeypatch.setattr(split_module, "write_shard", write)
    monkeypatch.setattr(split_module, "prepare_image", lambda *a: made.append(1) or prepared(*a))
    assert prepare(asked(photos, output, **options)) == whole
    assert len(made) == 30 + 6 - 3 * 7
    assert files(output) == files(tmp_path / "whole")
    assert prepare(asked(photos, output, **options)) == whole
    assert len(made) == 30 + 6 - 3 * 7


def test_a_full_disk_names_the_file_and_the_same_command_goes_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """It left a folder without its record, which the same command then refused as not empty."""
    output = tmp_path / "out"
    words = ["prepare", "--dataset", str(photos), "--output", str(output), "--short_side", "32"]

    with full_disk():
        assert main(words) == 2
    said = f"{output}/preparation.json: No space left on device; free space (or inodes: many small files) there"
    assert capsys.readouterr().err.splitlines()[-1] == f"ladder: error: {said}"
    (output / ".partial-preparation.json.killed").write_text("{")
    assert main(words) == 0
    assert len(rows(output, "train", streaming=False)) == 30
    assert not list(output.glob(".*"))


def test_other_columns_come_back_as_they_were(tmp_path: Path) -> None:
    values = {
        "picture": [{"bytes": encode(natural_image(40, 40, seed=n), "JPEG"), "path": f"{n}.jpg"} for n in range(9)],
        "fine": [None, *(n % 2 for n in range(8))],
        "caption": [None] * 8 + ["späte Blüte"],
        "scores": [[0.5 * n, -1.0] for n in range(9)],
        "about": [{"year": 2000 + n, "who": "x"} for n in range(9)],
    }
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "fine": datasets.ClassLabel(names=["no", "yes"]),
            "caption": datasets.Value("string"),
            "scores": datasets.List(datasets.Value("float32")),
            "about": {"year": datasets.Value("int32"), "who": datasets.Value("string")},
        }
    )
    source = datasets.Dataset.from_dict(values, features=features)
    source.to_parquet(tmp_path / "source.parquet")
    for kind in ("parquet", "webdataset"):
        prepare(asked(tmp_path / "source.parquet", tmp_path / kind, format=kind, shuffle=False, short_side=48))
        for streaming in (False, True):
            dataset = load_image_stream(tmp_path / kind, streaming=streaming)
            assert {name: dataset.features[name] for name in features} == dict(features)
            read = rows(tmp_path / kind, "train", streaming)
            for name in ("fine", "caption", "scores", "about"):
                assert [row[name] for row in read] == values[name], (kind, streaming, name)
            assert [row["picture"]["bytes"] for row in read] == [image["bytes"] for image in values["picture"]]


def test_mistakes_are_one_line_and_write_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*words: str) -> str:
        assert main(["prepare", *words]) == 2
        return capsys.readouterr().err

    source = ("--dataset", str(photos))
    assert "lies in" in fails(*source, "--output", str(photos / "small"))
    assert "no split 'tests'" in fails(*source, "--output", str(tmp_path / "out"), "--split", "tests")
    assert "quality must be at least 1 and at most 100" in fails(*source, "--output", "out", "--quality", "0")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "not empty" in fails(*source, "--output", str(tmp_path / "mine"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "datasets-cache") == ["mine", "photos"]
    for path in (photos / "test").rglob("*.jpg"):
        path.write_bytes(b"")
    assert "no image of the split 'test' can be read" in fails(*source, "--output", str(tmp_path / "out"))


def test_the_command_says_what_it_did_and_pretraining_reads_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train" / "cat" / "03.jpg").write_bytes(b"")
    output = tmp_path / "small"
    words = ["prepare", "--dataset", str(photos), "--output", str(output), "--short_side", "32", "--format=webdataset"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "train: 29 of 30 images in 2 shards" in said
    assert "unreadable  1, listed in bad_images.jsonl" in said
    assert "1 images are in test too" in said
    run = ["pretrain", "digits", "--dataset", str(output), "--streaming", "--output", str(tmp_path / "run")]
    small = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--image_size", "32", "--report_to", "none"]
    assert main([*run, *small, "--dataloader_num_workers", "0", "--monitor_images", "8"]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images_seen"] == 8


def test_a_small_split_has_shards_for_many_workers() -> None:
    assert images_per_shard(None, None) == images_per_shard(None, 10**6) == 2000
    assert images_per_shard(None, 6400) == 100
    assert images_per_shard(None, 10) == 16
    assert images_per_shard(5, 10**6) == 5


@pytest.mark.slow
def test_a_killed_preparation_leaves_the_same_files(photos: Path, tmp_path: Path) -> None:
    for number in range(400):
        path = photos / "train" / "cat" / f"more-{number}.jpg"
        path.write_bytes(encode(natural_image(100, 160, seed=number), "JPEG"))
    words = [sys.executable, "-m", "ladder_training", "prepare", "--dataset", str(photos), "--short_side", "32"]
    words += ["--shard_images", "9", "--workers", "1", "--output"]
    subprocess.run([*words, str(tmp_path / "whole")], check=True)
    output = tmp_path / "killed"
    for shards in (3, 20, 40):
        process = subprocess.Popen([*words, str(output)])
        while process.poll() is None and len(list(output.glob(".preparation/*.json"))) < shards:
            time.sleep(0.01)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*words, str(output)], check=True)
    assert files(output) == files(tmp_path / "whole")


def test_a_preparation_does_not_go_on_with_data_that_changed(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    whole = prepare(asked(photos, output))
    assert prepare(asked(Path(f"{photos}/../{photos.name}/"), output)) == whole  # the same, spelt otherwise
    (photos / "test" / "emu" / "05.jpg").write_bytes(encode(natural_image(48, 64, seed=7), "JPEG", quality=92))
    with pytest.raises(UserError, match="prepared otherwise \\(the files of the data set have changed since"):
        prepare(asked(photos, output))
