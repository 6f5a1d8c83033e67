"""Streams of small images of which one shard is damaged, in every way that is known."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.stream_data import encoded, write_members

SHARDS, EACH, DAMAGED = 8, 20, 3
"""Shards of the training split, images in each, and the number of the shard that is damaged."""
SECRET = "hunter2"
"""Content of damaged files, which no message may show."""


FEATURES = datasets.Features(
    {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"]), "note": datasets.Value("string")}
)


def _tars(
    folder: Path, change: Callable[[dict[str, bytes], str], None] | None = None, whole: bool = False, kind: str = "json"
) -> None:
    """Shards of images with classes in json (or cls) files.

    Args:
        folder: Where they are written.
        change: Changes the files of an image of the damaged shard, by their ending.
        whole: Whether it changes all images of that shard, and not one in its middle only.
        kind: "json" or "cls".
    """
    for split, shards in (("train", SHARDS), ("test", 1)):
        for shard in range(shards):
            members: dict[str, bytes] = {}
            for number in range(EACH):
                label = number % 2
                described = str(label) if kind == "cls" else json.dumps({"label": label, "note": "x"})
                files = {"jpg": encoded(12, 100 * shard + number), kind: described.encode()}
                damaged = split == "train" and shard == DAMAGED and (whole or number == EACH // 2)
                if change is not None and damaged:
                    change(files, kind)
                members |= {f"{split}-{shard}-{number:02d}.{ending}": content for ending, content in files.items()}
            write_members(folder / f"{split}-{shard:03d}.tar", members)


def _damaged_tar(folder: Path) -> Path:
    return folder / f"train-{DAMAGED:03d}.tar"


def _cut_tar(folder: Path) -> None:
    """Cut in the middle of an image."""
    _tars(folder)
    file = _damaged_tar(folder)
    file.write_bytes(file.read_bytes()[: 2 * 1024 * EACH // 2 + 700])


def _cut_between_files(folder: Path) -> None:
    """Cut where an image's files end: a reader meets no error, but no end mark either."""
    _tars(folder)
    file = _damaged_tar(folder)
    with tarfile.open(file) as tar:
        member = tar.getmembers()[EACH]
    file.write_bytes(file.read_bytes()[: member.offset])


def _no_archive(folder: Path) -> None:
    _tars(folder)
    _damaged_tar(folder).write_bytes(f"<html>{SECRET}</html>".encode() * 100)


def _empty_tar(folder: Path) -> None:
    _tars(folder)
    _damaged_tar(folder).write_bytes(b"")


def _described(text: str, kind: str = "json") -> Callable[[Path], None]:
    """One image whose json or cls file holds this text."""

    def make(folder: Path) -> None:
        _tars(folder, lambda files, ending: files.update({ending: text.encode()}), kind=kind)

    return make


def _without_json(folder: Path) -> None:
    _tars(folder, lambda files, ending: files.pop(ending) and None, whole=True)


def _parquet(folder: Path, table_of: Callable[[pa.Table, int], pa.Table] = lambda table, shard: table) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    folder.mkdir(parents=True, exist_ok=True)
    for split, shards in (("train", SHARDS), ("test", 1)):
        for shard in range(shards):
            images = [{"bytes": encoded(12, 100 * shard + number), "path": None} for number in range(EACH)]
            table = pa.table({"image": pa.array(images, kind), "label": [number % 2 for number in range(EACH)]})
            table = table.replace_schema_metadata(
                datasets.Features({name: FEATURES[name] for name in table.column_names}).arrow_schema.metadata
            )
            table = table_of(table, shard) if split == "train" else table
            pq.write_table(table, folder / f"{split}-{shard:03d}.parquet", row_group_size=EACH, compression="none")


def _damaged_page(folder: Path) -> None:
    _parquet(folder)
    file = folder / f"train-{DAMAGED:03d}.parquet"
    data = bytearray(file.read_bytes())
    column = pq.read_metadata(file).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 60] = b"\xff" * 60
    file.write_bytes(bytes(data))


def _damaged_footer(folder: Path) -> None:
    _parquet(folder)
    (folder / f"train-{DAMAGED:03d}.parquet").write_bytes(b"PAR1" + SECRET.encode())


def _other_ending(folder: Path) -> None:
    """One shard whose images have another ending: other columns than the first shard's."""
    _tars(folder, lambda files, _: files.update(png=files.pop("jpg")), whole=True)


DAMAGES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "cut tar": (_cut_tar, 1),
    "tar cut between files": (_cut_between_files, 1),
    "no archive": (_no_archive, 1),
    "empty tar": (_empty_tar, 1),
    "broken json": (_described("{" + SECRET), 1),
    "json list": (_described("[1, 2]"), 1),
    "json with a text label": (_described('{"label": "' + SECRET + '", "note": "x"}'), 1),
    "json with another key": (_described('{"label": 1, "note": "x", "more": [1]}'), 0),
    "text in cls": (_described(SECRET, "cls"), 1),
    "other ending": (_other_ending, EACH),
    "damaged page": (_damaged_page, 1),
    "damaged footer": (_damaged_footer, 1),
}
"""Damage -> what writes such a data set into a folder, and how many unreadable images it counts as."""

NO_LABEL: dict[str, Callable[[Path], Any]] = {
    "json null": _described("null"),
    "json without label": _described('{"note": "x"}'),
    "json with a null label": _described('{"label": null, "note": "x"}'),
    "no json": _without_json,
}
"""What makes images of a shard unlabelled, but none unreadable."""
