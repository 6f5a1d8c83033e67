"""Folders of images: which subfolders are splits, what is left out, and what the classes are."""

from pathlib import Path

import pytest

from helpers.stream_data import encoded
from ladder_training.data.left_out import account_of
from ladder_training.data.sources import load_image_stream, split_names
from ladder_training.errors import UserError


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(8, len(name), "PNG"))


def names_of(dataset: object, root: Path) -> list[str]:
    images = dataset.data.column("image").to_pylist()  # type: ignore[attr-defined]
    return [str(Path(image["path"]).relative_to(root)) for image in images]


def test_splits_at_any_depth_as_datasets_reads_them(tmp_path: Path) -> None:
    for kind in ("bottle", "cable"):
        fill(tmp_path, f"{kind}/train/good/1.png", f"{kind}/train/good/2.png", f"{kind}/test/broken/1.png")
    fill(tmp_path, "poster.png")
    assert split_names(tmp_path) == ["train", "test"]
    train = load_image_stream(tmp_path)
    assert names_of(train, tmp_path) == [f"{k}/train/good/{n}.png" for k in ("bottle", "cable") for n in (1, 2)]
    assert train.features["label"].names == ["bottle", "cable"]
    assert train["label"] == [0, 0, 1, 1]
    assert account_of(train).lines() == ["left out: 1 images outside of the folders that name splits (poster.png)"]


def test_splits_one_folder_down_keep_their_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        fill(tmp_path, f"data/{split}/cat/1.png", f"data/{split}/dog/1.png")
    train, validation = load_image_stream(tmp_path), load_image_stream(tmp_path, "validation")
    assert names_of(train, tmp_path) == ["data/train/cat/1.png", "data/train/dog/1.png"]
    assert train.features["label"].names == validation.features["label"].names == ["cat", "dog"]


def test_folders_named_for_splits_by_a_word_are_splits_if_all_are(tmp_path: Path) -> None:
    fill(tmp_path, "train2017/1.png", "val2017/2.png")
    assert names_of(load_image_stream(tmp_path), tmp_path) == ["train2017/1.png"]
    fill(tmp_path, "cars/3.png")
    whole = load_image_stream(tmp_path)
    assert len(whole) == 3
    assert whole.features["label"].names == ["cars", "train2017", "val2017"]


def test_file_names_are_splits_only_if_all_of_them_say_so(tmp_path: Path) -> None:
    fill(tmp_path, "train_1.png", "train_2.png", "test_1.png")
    assert names_of(load_image_stream(tmp_path), tmp_path) == ["train_1.png", "train_2.png"]
    fill(tmp_path, "holiday.png")
    whole = load_image_stream(tmp_path)
    assert len(whole) == 4
    assert account_of(whole).lines() == [
        "1 file names name a split that is not train (test_1.png), but not every name names a split: all images are "
        "taken for train"
    ]


def test_a_folder_named_test_without_train_is_a_class_and_that_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "test/1.png", "good/2.png")
    whole = load_image_stream(tmp_path)
    assert whole.features["label"].names == ["good", "test"]
    assert account_of(whole).lines() == ["no folder is named train: test are taken for folders of train"]


def test_only_test_folders_are_not_trained_on(tmp_path: Path) -> None:
    fill(tmp_path, "val/1.png", "test/2.png")
    with pytest.raises(UserError, match="no split 'train'; its splits are: validation, test"):
        load_image_stream(tmp_path)


def test_what_lies_beside_the_split_folders_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "more/2.png", "loose.png")
    (tmp_path / "train" / "a" / "2.heic").touch()
    (tmp_path / "train" / "part.tar").touch()
    assert account_of(load_image_stream(tmp_path)).lines() == [
        "left out: 1 files with an ending that is not an image's: 1 .heic (a/2.heic)",
        "left out: 1 Parquet or .tar files: this is read as a folder of images (part.tar)",
        "left out: 2 files or folders beside the folders of the splits (loose.png, more)",
    ]


def test_split_folders_may_be_links(tmp_path: Path) -> None:
    store, data = tmp_path / "store", tmp_path / "data"
    data.mkdir()
    for split in ("train", "val"):
        fill(store, f"{split}/a/1.png", f"{split}/b/1.png")
        (data / split).symlink_to(store / split)
    assert names_of(load_image_stream(data), data) == ["train/a/1.png", "train/b/1.png"]
    assert names_of(load_image_stream(data, "validation"), data) == ["val/a/1.png", "val/b/1.png"]
    linked = tmp_path / "linked"
    linked.symlink_to(data)
    assert len(load_image_stream(linked)) == 2
