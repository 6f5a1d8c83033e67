"""Parts of a file of embeddings: each is complete or absent, and all of them together become the file."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError
from ...files import fsync, holds_something, named_in_errors, read_record, same_name, write_record
from .rows import Label

PLAN = "ladder_embedding"
"""Key of the Parquet metadata that holds what the embeddings are."""
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Destination:
    """Where embeddings are written, and what they are.

    Attributes:
        output: The file.
        plan: Everything that decides on the embeddings; JSON.
        schema: Of the rows: id, split, label and label_name if there are labels, and a column per stage.
        npy: Name of the stage whose matrix is written as .npy, beside a Parquet file of the other columns; None writes
            one Parquet file.
    """

    output: Path
    plan: dict[str, Any]
    schema: Any
    npy: str | None

    @property
    def folder(self) -> Path:
        """Folder of the parts, beside the output."""
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def table_file(self) -> Path:
        """The Parquet file that holds ids and labels."""
        return self.output if self.npy is None else self.output.with_suffix(".rows.parquet")

    @property
    def stopped(self) -> Path:
        """A file that is there if a process has stopped, so that the others end after the part they are at."""
        return self.folder / "stopped"

    def part(self, key: tuple[int, int]) -> Path:
        """The file of a part: (split's number, part's number)."""
        return self.folder / f"part-{key[0]}-{key[1]:06d}.parquet"


def make_schema(label: Label, widths: dict[str, int]) -> Any:
    """Make the schema of the rows.

    Args:
        label: How labels are stored.
        widths: Stage to number of channels.
    """
    import pyarrow as pa

    fields = [pa.field("id", pa.string()), pa.field("split", pa.string())]
    if label.column is not None:
        fields.append(pa.field("label", pa.string() if label.is_text else pa.int64()))
    if label.names:
        fields.append(pa.field("label_name", pa.string()))
    fields += [pa.field(name, pa.list_(pa.float32(), width)) for name, width in widths.items()]
    return pa.schema(fields)


def is_finished(destination: Destination) -> bool:
    """Whether the output holds these embeddings already.

    Raises:
        UserError: the output exists and holds something else, or the parts beside it do.
    """
    output, folder = destination.output, destination.folder
    if output.is_dir():
        raise UserError(f"output {output} is a folder; name a file")
    if output.exists():
        known = _written_plan(destination.table_file)
        if known is not None and not (differing := _differing(known, destination.plan)):
            return True
        which = "" if known is None else f" ({', '.join(differing)})"
        raise UserError(
            f"output {output} exists and holds something else{which}; choose another --output, or delete it"
        )
    if folder.exists() and holds_something(folder):
        differing = _differing(read_record(folder / "plan.json"), destination.plan)
        if differing:
            raise UserError(
                f"{folder} holds parts of other embeddings ({', '.join(differing)}); delete it, or choose "
                "another --output"
            )
    return False


def _differing(known: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Names of what differs between the plan of an earlier call and this one; one folder may be spelt in two ways."""
    names = {**known, **plan}
    # Files of older versions do not know the last two.
    old = {"files": plan.get("files"), "trust_paths": False, **known}
    both = [{**values, "dataset": same_name(str(values.get("dataset")))} for values in (old, plan)]
    return [name for name in names if both[0].get(name) != both[1].get(name)]


def start(destination: Destination) -> None:
    """Make the folder of the parts, or take it as an earlier call left it."""
    plan = destination.folder / "plan.json"
    if not plan.exists():  # a full disk may have left the folder without it
        write_record(plan, destination.plan)
    destination.stopped.unlink(missing_ok=True)


def write_part(destination: Destination, key: tuple[int, int], columns: dict[str, Any], bad: list[list[str]]) -> None:
    """Write a part in one step.

    Args:
        destination: Where.
        key: (split's number, part's number).
        columns: Column to values; a stage's are a float32 array (images, channels).
        bad: [id, reason] of every image that could not be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = []
    for field in destination.schema:
        values = columns[field.name]
        if isinstance(values, np.ndarray):
            flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:
            arrays.append(pa.array(values, field.type))
    schema = destination.schema.with_metadata({UNREADABLE: json.dumps(bad)})
    _whole(destination.part(key), lambda path: pq.write_table(pa.table(arrays, schema=schema), path))


def read_bad(destination: Destination, key: tuple[int, int]) -> tuple[int, list[list[str]]]:
    """Of a part that is written: the number of its images, with the unreadable ones, and [id, reason] of these."""
    import pyarrow.parquet as pq

    part = pq.ParquetFile(destination.part(key))
    bad = json.loads(part.schema_arrow.metadata[UNREADABLE.encode()])
    return part.metadata.num_rows + len(bad), bad


def merge(destination: Destination, keys: list[tuple[int, int]]) -> tuple[int, list[list[str]]]:
    """Join the parts to the output, in order, and delete them.

    Returns:
        Number of embeddings, and [id, reason] of every image that could not be read.

    Raises:
        UserError: no image could be read.
    """
    import pyarrow.parquet as pq

    parts = [pq.ParquetFile(destination.part(key)) for key in keys]
    bad = [entry for part in parts for entry in json.loads(part.schema_arrow.metadata[UNREADABLE.encode()])]
    count = sum(part.metadata.num_rows for part in parts)
    if count == 0:
        example = f" ({bad[0][0]}: {bad[0][1]})" if bad else ""
        shutil.rmtree(destination.folder)
        raise UserError(f"none of the {len(bad)} images can be read{example}; nothing was written")
    written = {**destination.plan, "images": count, "unreadable": bad}
    dropped = [] if destination.npy is None else [destination.npy]
    kept = [name for name in destination.schema.names if name not in dropped]
    fields = [destination.schema.field(name) for name in kept]

    def write_table(path: Path) -> None:
        import pyarrow as pa

        with pq.ParquetWriter(path, pa.schema(fields, metadata={PLAN: json.dumps(written)})) as writer:
            for part in parts:
                writer.write_table(part.read(columns=kept).cast(writer.schema))

    def write_matrix(path: Path) -> None:
        assert destination.npy is not None
        width = destination.schema.field(destination.npy).type.list_size
        matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))
        first = 0
        for part in parts:
            column = part.read(columns=[destination.npy]).column(0).combine_chunks()
            values = column.flatten().to_numpy().reshape(-1, width)
            matrix[first : first + len(values)] = values
            first += len(values)
        matrix.flush()

    _whole(destination.table_file, write_table)
    if destination.npy is not None:
        _whole(destination.output, write_matrix)
    shutil.rmtree(destination.folder)
    return count, bad


def _whole(path: Path, write: Any) -> None:
    """Let `write` fill a file beside `path`, and put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with named_in_errors(path):
            write(temporary)
            fsync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _written_plan(path: Path) -> dict[str, Any] | None:
    """What a finished file says that it holds; None if it is no file of embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = json.loads((pq.read_schema(path).metadata or {})[PLAN.encode()])
    except (OSError, KeyError, ValueError, pa.ArrowInvalid):
        return None
    return {name: value for name, value in content.items() if name not in ("images", UNREADABLE)}
