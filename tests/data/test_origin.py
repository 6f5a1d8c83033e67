"""Paths and addresses in the rows of a data set are followed below its own folder only, unless they are trusted."""

import dataclasses
import itertools
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.stream_data import encoded
from ladder_training.data.columns import without_decoding
from ladder_training.data.held_out import split_monitoring
from ladder_training.data.iterable import readable_examples
from ladder_training.data.origin import PathRule, confined_stream, folder_rule, origin_of
from ladder_training.data.sources import load_image_stream
from ladder_training.errors import BadImageError, TrainingStopped
from ladder_training.files import UNTRUSTED
from ladder_training.images.decode import decode_image
from ladder_training.loading.chunks import fetch_remote
from ladder_training.loading.loader import ViewLoader
from ladder_training.views.two_views import TwoViewTransform

pytestmark = pytest.mark.usefixtures("own_cache")


def test_which_paths_are_followed() -> None:
    rule = PathRule(("/data/set",), ("hf://datasets/me/set@",))
    followed = {
        "a.png": "/data/set/a.png",
        "sub/../a.png": "/data/set/a.png",
        "/data/set/b/a.png": "/data/set/b/a.png",
        "hf://datasets/me/set@abc/a.png": "hf://datasets/me/set@abc/a.png",
        "zip://a.png::hf://datasets/me/set@abc/x.zip": "zip://a.png::hf://datasets/me/set@abc/x.zip",
    }
    assert {path: rule.follow(path) for path in followed} == followed
    for path in (
        "/etc/passwd",
        "../other/a.png",
        "sub/../../../etc/passwd",
        "/data/setting/a.png",
        "/data/set",
        "http://host/a.png",
        "file:///data/set/a.png",
        "zip://hf://datasets/me/set@abc::http://host/x.zip",
        "hf://datasets/me/set-of-another@abc/a.png",
        UNTRUSTED + "a.png",
    ):
        assert rule.follow(path).startswith(UNTRUSTED)
    assert PathRule(("/data/set",)).follow("http://host/a.png").startswith(UNTRUSTED)


def write(tmp_path: Path, bytes_too: bool) -> tuple[Path, Path]:
    """A Parquet file of eight images below it, two elsewhere, an address, and, if asked, one with bytes."""
    data, secret = tmp_path / "set", tmp_path / "secret.png"
    (data / "img").mkdir(parents=True)
    secret.write_bytes(encoded(40, 77, "PNG"))
    rows = []
    for number in range(8):
        (data / "img" / f"{number}.png").write_bytes(encoded(40, number, "PNG"))
        rows.append({"bytes": None, "path": f"img/{number}.png" if number % 2 else str(data / "img" / f"{number}.png")})
    rows += [{"bytes": None, "path": str(secret)}, {"bytes": None, "path": "img/../../secret.png"}]
    rows += [{"bytes": None, "path": "http://127.0.0.1:1/a.png"}]
    if bytes_too:
        rows.append({"bytes": encoded(40, 99, "PNG"), "path": "/etc/passwd"})
    # `datasets` itself would drop the bytes of an image whose path exists.
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), data / "train.parquet", row_group_size=4)
    return data, secret


def readable(images: list[object]) -> tuple[int, list[str]]:
    """How many images can be read, and the reasons of the others."""
    count, reasons = 0, []
    for image in images:
        try:
            decode_image(fetch_remote(image))
            count += 1
        except BadImageError as error:
            reasons.append(str(error))
    return count, reasons


@pytest.mark.parametrize("bytes_too", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_name_other_files_are_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, bytes_too: bool
) -> None:
    data, secret = write(tmp_path, bytes_too)
    monkeypatch.chdir(tmp_path)
    dataset = without_decoding(load_image_stream(data / "train.parquet", streaming=streaming))
    rows = readable_examples(dataset, []) if streaming else iter(dataset)
    count, reasons = readable([row["image"] for row in rows])
    assert count == 8 + bytes_too
    assert reasons == ["names a file or address outside of the data set; --trust_paths true follows it"] * 3
    trusted = without_decoding(load_image_stream(data / "train.parquet", streaming=streaming, trust_paths=True))
    paths = [row["image"]["path"] for row in trusted]
    assert str(secret) in paths
    assert "http://127.0.0.1:1/a.png" in paths


@pytest.mark.parametrize("streaming", [False, True])
def test_training_lists_them_and_reads_none(tmp_path: Path, streaming: bool) -> None:
    data, _ = write(tmp_path, True)
    bad = tmp_path / "bad_images.jsonl"
    loader = ViewLoader(
        load_image_stream(data / "train.parquet", streaming=streaming),
        TwoViewTransform(size=16),
        batch_size=4,
        max_bad_fraction=1.0,
        bad_images_file=bad,
    )
    for batch in itertools.islice(loader, 5):
        assert batch["pixel_values"].shape == (4, 2, 3, 16, 16)
    lines = bad.read_text().splitlines()
    assert len(lines) == 3
    assert all("outside of the data set" in line for line in lines)


def test_evaluation_of_a_stream_keeps_the_bytes_of_images_whose_path_exists(tmp_path: Path) -> None:
    data, _ = write(tmp_path, True)
    stream = confined_stream(without_decoding(load_image_stream(data / "train.parquet", streaming=True)))
    count, reasons = readable([row["image"] for row in stream])
    assert (count, len(reasons)) == (9, 3)


def test_held_out_images_of_a_stream_keep_the_rule(tmp_path: Path) -> None:
    data, _ = write(tmp_path, True)
    rest, held_out = split_monitoring(
        load_image_stream(data / "train.parquet", streaming=True), fraction=0.9, minimum=2
    )
    assert origin_of(rest).path_rule == PathRule((str(data),))
    count, reasons = readable([row["image"] for row in without_decoding(held_out)])
    assert count + len(reasons) == len(held_out)
    assert all("outside" in reason for reason in reasons)


def test_relative_paths_that_do_not_exist_say_so(tmp_path: Path) -> None:
    rows = {"image": [f"photos/{number}.png" for number in range(8)]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    loader = ViewLoader(load_image_stream(tmp_path), TwoViewTransform(size=16), batch_size=4, max_bad_fraction=1.0)
    with pytest.raises(
        TrainingStopped, match=r"fewer than one batch of 4 can be read; for example .*photos/\d\.png: no such file"
    ):
        next(iter(loader))


def test_links_in_the_folder_of_a_data_set_do_not_lead_out_of_it(tmp_path: Path) -> None:
    data, private = tmp_path / "set", tmp_path / "private"
    for folder in (data / "images", private):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(encoded(24, kind="PNG"))
    (data / "out.png").symlink_to(private / "x.png")
    (data / "out").symlink_to(private)
    (data / "again").symlink_to("out")
    (data / "in.png").symlink_to("images/x.png")
    (data / "in").symlink_to("images")
    (tmp_path / "alias").symlink_to(data)  # the user may reach the data set itself by a link
    for rule in (folder_rule(data), folder_rule(tmp_path / "alias")):
        for path in ("images/x.png", "in.png", "in/x.png"):
            assert Path(rule.follow(path)).read_bytes() == encoded(24, kind="PNG")
        for path in ("out.png", "out/x.png", "again/x.png", "in/../out/x.png"):
            assert rule.follow(path).startswith(UNTRUSTED), path
    assert dataclasses.replace(folder_rule(data), trusted=True).follow("out.png") == str(data / "out.png")
