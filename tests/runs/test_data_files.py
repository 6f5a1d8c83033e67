"""The files of a data set are compared by name, size and content."""

from pathlib import Path

from ladder_training.data.content import describe_files
from ladder_training.runs.data_files import changed_data, write_data_files
from ladder_training.runs.run_folder import differing_fields


def test_what_differs_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        (data / name).write_bytes(name.encode() * 50_000)
    write_data_files(tmp_path, {"data": describe_files(data, names, 100)})
    assert changed_data(tmp_path, ["./data"], {"./data": describe_files(data, names[::-1], 100)}) == []
    (data / "0.png").write_bytes(b"0.png" * 49_999 + b"0.gif")  # the size is the same
    (data / "1.png").rename(data / "x.png")
    names = sorted(path.name for path in data.iterdir())
    assert changed_data(tmp_path, ["data"], {"data": describe_files(data, names, 100)}) == [
        "data: 1 files are gone (1.png), 1 are new (x.png), 1 have another content (0.png)"
    ]


def test_of_many_files_the_numbers_are_compared(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"12345")
    few = describe_files(tmp_path, ["0.png", "1.png"], 1)
    assert few["files"] is None
    write_data_files(tmp_path, {"data": few})
    now = describe_files(tmp_path, ["0.png", "1.png", "2.png"], 1)
    assert changed_data(tmp_path, ["data"], {"data": now}) == ["data: 2 files of 10 bytes at the start, 3 of 15 now"]
    assert changed_data(tmp_path, ["data"], {"data": few}) == []


def test_a_run_without_a_list_is_not_compared(tmp_path: Path) -> None:
    assert changed_data(tmp_path, ["data"], {"data": {"count": 1, "bytes": 1, "hash": "x", "files": None}}) == []


def test_spellings_of_one_folder_are_one_data_set(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    for spelling in ("images/", "./images", str(tmp_path / "images")):
        assert differing_fields({"dataset": "images"}, {"dataset": spelling}) == []
        assert differing_fields({"dataset": ["images", "digits"]}, {"dataset": [spelling, "digits"]}) == []
    assert differing_fields({"dataset": "images"}, {"dataset": "image"}) == ["dataset"]
