"""Splits told from names: the same as `datasets` finds in the same folder; what names do not say is said."""

from pathlib import Path

import datasets
import pytest

from helpers.stream_data import encoded, numbered, write_tar
from ladder_training.data.left_out import Account, account_of
from ladder_training.data.sources import load_image_stream, split_names
from ladder_training.data.split_names import assign_splits
from ladder_training.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

LAYOUTS = [
    ["set-train-000.parquet", "set-train-001.parquet", "set-validation-00.parquet"],
    ["x-train-00.parquet", "x-train-01.parquet", "x-test-00.parquet"],
    ["train2017.parquet", "val2017.parquet"],
    ["my.train.parquet", "my.dev.parquet", "my.eval.parquet"],
    ["training_1.parquet", "valid 2.parquet", "testing.parquet"],
    ["a_train_b/0.parquet", "a_train_b/1.parquet", "validation/0.parquet"],
    ["deep/er/train/x.parquet", "deep/er/test/x.parquet", "deep/readme_test.parquet"],
    ["train-0.parquet", "test-0.parquet", "extra.parquet"],
    ["constrained.parquet", "latest.parquet"],
    ["part-0.parquet", "part-1.parquet"],
    ["trainval.parquet", "atest.parquet"],
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout[0] for layout in LAYOUTS])
def test_the_splits_are_those_that_datasets_finds(tmp_path: Path, layout: list[str]) -> None:
    for size, name in enumerate(layout, start=3):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        numbered(size).to_parquet(tmp_path / "set" / name)
    theirs = datasets.load_dataset(str(tmp_path / "set"))
    ours = {name: len(load_image_stream(tmp_path / "set", name)) for name in split_names(tmp_path / "set")}
    assert ours == {name: len(split) for name, split in theirs.items()}


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_named_in_the_middle_are_not_trained_on_with_those_of_another_split(
    tmp_path: Path, streaming: bool
) -> None:
    for number, name in enumerate(("set-train-000.tar", "set-train-001.tar", "set-validation-00.tar")):
        write_tar(tmp_path / name, [encoded(seed=number * 3 + n) for n in range(3)], number * 3)
    train = load_image_stream(tmp_path, streaming=streaming)
    assert sorted(row["__key__"] for row in train) == [f"{n:05d}" for n in range(6)]
    held_out = load_image_stream(tmp_path, "validation", streaming)
    assert sorted(row["__key__"] for row in held_out) == [f"{n:05d}" for n in range(6, 9)]


def test_what_names_do_not_say_is_said() -> None:
    account = Account()
    assert assign_splits(["a.tar", "b.tar"], "x", account) == {"train": ["a.tar", "b.tar"]}
    assert account.lines() == ["no name of a file or folder names a split: all 2 are taken for train"]
    account = Account()
    assert assign_splits(["images.tar", "test.tar"], "x", account) == {"train": ["images.tar"], "test": ["test.tar"]}
    assert account.lines() == [
        "1 files whose names name no split are taken for train (images.tar); names name only test"
    ]
    account = Account()
    assert assign_splits(["train-0.tar", "test.tar", "more.tar"], "x", account) == {
        "train": ["train-0.tar"],
        "test": ["test.tar"],
    }
    assert account.lines() == ["left out: 1 files whose names name no split, beside files whose names do (more.tar)"]


def test_a_name_of_two_splits_is_refused_unless_the_others_tell_which() -> None:
    with pytest.raises(UserError, match=r"the name of train-val\.tar names two splits"):
        assign_splits(["train-val.tar", "train.tar", "other.tar"], "x", Account())
    files = ["dev-set-train-0.tar", "dev-set-test-0.tar"]
    assert assign_splits(files, "x", Account()) == {"train": files[:1], "test": files[1:]}
    assert assign_splits(["dev-set-train-0.tar"], "x", Account()) == {"train": ["dev-set-train-0.tar"]}


def test_folders_that_all_files_share_do_not_hide_what_the_files_say() -> None:
    files = ["test-data/train-0.tar", "test-data/val-0.tar"]
    assert assign_splits(files, "x", Account()) == {"train": files[:1], "validation": files[1:]}
    nested = ["train/a-val/0.tar", "train/b/0.tar"]
    assert assign_splits(nested, "x", Account()) == {"train": nested[1:], "validation": nested[:1]}


def test_the_account_of_a_loaded_data_set_names_what_is_left_out(tmp_path: Path) -> None:
    for name in ("train-0.parquet", "test-0.parquet", "extra.parquet"):
        numbered(3).to_parquet(tmp_path / name)
    assert account_of(load_image_stream(tmp_path)).lines() == [
        "left out: 1 files whose names name no split, beside files whose names do (extra.parquet)"
    ]
