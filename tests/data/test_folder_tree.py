"""What lies below a folder: every file is accounted for, links are read by one rule, and loops end."""

import os
from pathlib import Path

import pytest

from ladder_training.data.folder_tree import ending, read_tree
from ladder_training.data.left_out import Account


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_file_is_an_image_a_packed_file_or_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "b/2.JPG", "a.png", "c.heic", "d.HEIC", "b/noending", "x.tar", "y.parquet", ".DS_Store", ".git/1.png"
    )
    touch(tmp_path, "b/._2.jpg", "notes.txt")
    tree = read_tree(tmp_path)
    assert tree.images == ["a.png", "b/2.JPG"]
    assert tree.packed == ["x.tar", "y.parquet"]
    assert tree.others == ["b/noending", "c.heic", "d.HEIC", "notes.txt"]
    assert tree.hidden == [".git", "b/._2.jpg"]
    account = Account()
    tree.report(account)
    assert account.lines() == [
        "left out: 4 files with an ending that is not an image's: 2 .heic, 1 without an ending, 1 .txt "
        "(b/noending, c.heic, d.HEIC, ...)",
        "left out: 2 hidden files or folders (.git, b/._2.jpg)",
    ]


def test_endings() -> None:
    names = {"a.JPG": ".jpg", "a.b/c": "", ".hidden": "", "x.tar.gz": ".gz", "a.": "", "d/e.png": ".png"}
    assert {name: ending(name) for name in names} == names


def test_a_real_folder_is_read_under_its_own_name_and_once(tmp_path: Path) -> None:
    touch(tmp_path, "z/1.png")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    tree = read_tree(tmp_path)
    assert tree.images == ["z/1.png"]
    assert tree.repeated == ["a"]


def test_folders_that_only_links_reach_are_read_and_loops_end(tmp_path: Path) -> None:
    store = tmp_path / "store"
    touch(store, "cat/1.png", "deep/2.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "first").symlink_to(store / "cat")
    (data / "second").symlink_to(store / "cat")
    (data / "third").symlink_to(store / "deep")
    (store / "deep" / "back").symlink_to(data)
    (store / "deep" / "self").symlink_to("self")
    (data / "one.png").symlink_to(store / "cat" / "1.png")
    tree = read_tree(data)
    assert tree.images == ["first/1.png", "one.png", "third/2.png"]
    assert tree.repeated == ["second", "third/back"]
    assert tree.others == ["third/self"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "open/1.png", "shut/2.png")
    scandir = os.scandir

    def refuse(path: Path) -> "os._ScandirContextManager[str]":
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    tree = read_tree(tmp_path)
    assert (tree.images, tree.closed) == (["open/1.png"], ["shut"])


def test_names_that_are_not_utf8_are_counted_and_can_be_printed(tmp_path: Path) -> None:
    touch(tmp_path, "ok.png")
    for name in (b"caf\xe9.png", b"d\xe9j\xe0/1.png"):
        path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        open(path, "wb").close()  # noqa: PTH123
    account, tree = Account(), read_tree(tmp_path)
    tree.report(account)
    assert tree.images == ["ok.png"]
    (line,) = account.lines()
    assert line == (r"left out: 2 files or folders whose name is not UTF-8; rename them (caf\xe9.png, d\xe9j\xe0)")
    line.encode()
