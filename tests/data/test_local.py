"""What a path is taken for: images or archives, whichever `datasets` would read; two equal readings are refused."""

from pathlib import Path

import pytest

from helpers.stream_data import encoded, numbered, write_tar
from ladder_training.data.left_out import account_of
from ladder_training.data.local import locate
from ladder_training.data.sources import load_image_stream
from ladder_training.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


def images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encoded(8, number, "PNG"))


@pytest.mark.parametrize("where", ["", "images", "train"])
@pytest.mark.parametrize("stray", ["images_part1.tar", "labels.parquet"])
def test_a_stray_archive_does_not_replace_the_images(tmp_path: Path, where: str, stray: str) -> None:
    images(tmp_path / where, 20)
    if stray.endswith(".tar"):
        write_tar(tmp_path / stray, [encoded(seed=n) for n in range(5)])
    else:
        numbered(5).to_parquet(tmp_path / stray)
    dataset = load_image_stream(tmp_path)
    assert len(dataset) == 20
    assert any(stray in line for line in account_of(dataset).lines())


def test_shards_with_a_preview_beside_them_are_read_and_the_preview_is_named(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"a-{number}.tar", [encoded(seed=number)], number)
    images(tmp_path, 1)
    dataset = load_image_stream(tmp_path)
    assert len(dataset) == 3
    assert "left out: 1 images beside the files (0.png)" in account_of(dataset).lines()


def test_the_layout_of_the_hub_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    numbered(4).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    images(tmp_path / "figures", 6)
    assert len(load_image_stream(tmp_path)) == 4


def test_two_equally_good_readings_are_refused_and_both_named(tmp_path: Path) -> None:
    images(tmp_path / "pictures", 2)
    for number in range(2):
        write_tar(tmp_path / f"a-{number}.tar", [encoded(seed=number)], number)
    with pytest.raises(
        UserError, match=r"may be a folder of 2 images or a data set of 2 \.tar files \(a-0\.tar, \.\.\.\)"
    ):
        load_image_stream(tmp_path)
    assert len(load_image_stream(tmp_path / "pictures")) == 2
    assert len(load_image_stream(str(tmp_path / "*.tar"))) == 2


def test_an_archive_that_names_a_split_among_images_that_do_not_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "pictures", 9)
    write_tar(tmp_path / "train-0.tar", [encoded(seed=1)])
    with pytest.raises(UserError, match=r"folder of 9 images or a data set of 1 \.tar files"):
        load_image_stream(tmp_path)


def test_of_two_kinds_of_files_the_more_numerous_one_is_read(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"a-{number}.tar", [encoded(seed=number)], number)
    numbered(3).to_parquet(tmp_path / "labels.parquet")
    dataset = load_image_stream(tmp_path)
    assert len(dataset) == 2
    assert "left out: 1 files that are not .tar (labels.parquet)" in account_of(dataset).lines()
    numbered(3).to_parquet(tmp_path / "more.parquet")
    with pytest.raises(UserError, match=r"may be a data set of 2 \.tar, 2 \.parquet files"):
        load_image_stream(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.heic").touch()
    with pytest.raises(UserError, match=r"no images, Parquet files or WebDataset shards \(left out: 3 .*3 \.heic"):
        load_image_stream(tmp_path)


def test_a_device_is_no_data_set() -> None:
    with pytest.raises(UserError, match="/dev/null: a data set is a folder or a file, and this is neither"):
        locate("/dev/null")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos.zip", r"not a \.zip file; unpack it first$"),
        ("photos.tar.gz", r"not a \.gz file; unpack it first$"),
        ("photo.jpg", r"not one image; name its folder$"),
        ("photo.HEIC", r"not a \.heic file; convert the photographs to JPEG or PNG first$"),
        ("labels.csv", r"not a \.csv file; name the folder that holds the images$"),
        ("photos", r"not a file without an ending$"),
    ],
)
def test_a_file_that_is_no_data_set_is_told_what_to_do(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UserError, match=said):
        locate(str(tmp_path / name))


@pytest.mark.parametrize(
    ("endings", "said"),
    [
        ([".mp4", ".mp4", ".txt"], "; write frames of the videos as images first$"),
        ([".heic", ".MOV", ".heic"], "; convert the photographs to JPEG or PNG first$"),
        ([".zip"], "; unpack it first$"),
        ([".xyz"], r"3 \.xyz \(0\.xyz, 1\.xyz, 2\.xyz\)\)$"),
    ],
)
def test_a_folder_without_images_says_what_to_do_about_what_it_holds(
    tmp_path: Path, endings: list[str], said: str
) -> None:
    for number in range(3):
        (tmp_path / f"{number}{endings[number % len(endings)]}").write_bytes(b"x")
    with pytest.raises(UserError, match=said):
        locate(str(tmp_path))


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the superuser, who may read everything, it can only be simulated."""
    images(tmp_path / "closed", 1)

    def refuse(*where: object) -> None:
        raise PermissionError(13, "Permission denied")

    for place in ("iterdir", "glob"):
        monkeypatch.setattr(Path, place, refuse)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=r"closed: this folder cannot be read: Permission denied$"):
        locate(str(tmp_path / "closed"))
