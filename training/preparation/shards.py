"""Writing one shard: a Parquet file or a WebDataset archive, which is whole or not there."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..data.prepared import IMAGE_MEMBER, JSON_MEMBER
from ..files import fsync
from .columns import Columns

# Streams read row groups in random order (see `data.parquet`): small ones mix well, and a worker holds little of them.
_ROWS_PER_GROUP = 128

SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}


class Row(NamedTuple):
    """One image and what belongs to it.

    Attributes:
        name: Unique in the data set, the same in every run.
        path: The image's file, for people who look for it.
        data: Encoded bytes.
        columns: Column -> value, without the image.
    """

    name: str
    path: str
    data: bytes
    columns: dict[str, Any]


def write_shard(path: Path, rows: list[Row], columns: Columns, kind: str) -> None:
    """Write a shard; the same rows give the same bytes.

    Args:
        path: The file. It appears when it is complete, and replaces one of this name.
        rows: What is written, in order.
        columns: The columns of the data set.
        kind: "parquet" or "webdataset".
    """
    writers: dict[str, Callable[[Path, list[Row], Columns], None]] = {
        "parquet": _write_parquet,
        "webdataset": _write_webdataset,
    }
    temporary = path.with_name(f".{path.name}.writing")
    try:
        writers[kind](temporary, rows, columns)
        fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_parquet(path: Path, rows: list[Row], columns: Columns) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet

    schema = datasets.Features(columns.features).arrow_schema
    # JPEG bytes do not get smaller, and what is not compressed need not be expanded.
    with pyarrow.parquet.ParquetWriter(path, schema, compression="NONE", use_dictionary=False) as writer:
        for first in range(0, len(rows), _ROWS_PER_GROUP):
            group = rows[first : first + _ROWS_PER_GROUP]
            values = {name: [row.columns.get(name) for row in group] for name in columns.features}
            values[columns.image] = [{"bytes": row.data, "path": row.path} for row in group]
            writer.write_table(pa.Table.from_pydict(values, schema=schema))


def _write_webdataset(path: Path, rows: list[Row], columns: Columns) -> None:
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            members = {IMAGE_MEMBER: row.data}
            if len(columns.features) > 1:
                members[JSON_MEMBER] = json.dumps(row.columns, ensure_ascii=False).encode()
            for extension, content in members.items():
                member = tarfile.TarInfo(f"{row.name}.{extension}")
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))


def image_path(path: Any, root: str | os.PathLike[str]) -> str:
    """The path of an image below its data set; of an image elsewhere its file name; "" if there is none."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        return ""
    image = Path(path)
    return (image.relative_to(root) if image.is_relative_to(root) else Path(image.name)).as_posix()
