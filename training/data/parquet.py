"""Reading Parquet as a stream without holding whole files in memory.

By default `datasets` reads whole row groups, and Arrow keeps what it has read in advance until the end of the file. A
worker with eight open files of half a gigabyte would hold gigabytes.
"""

from typing import Any

from ..errors import is_machine_error
from .iterable import declare_length

_ROWS = 64
_MOST_SHARDS = 50_000  # `datasets` copies lists of all shards whenever it cuts a stream


def parquet_reading(remote: bool = False) -> dict[str, Any]:
    """Arguments of `datasets`' Parquet builder that make it read 64 rows at a time, and nothing in advance.

    Args:
        remote: Whether the files are read over a network. A column of a row group is then read in one piece.
    """
    import pyarrow.dataset

    buffered: dict[str, Any] = {} if remote else {"use_buffered_stream": True, "buffer_size": 1 << 20}
    options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False, **buffered)
    return {"batch_size": _ROWS, "fragment_scan_options": options}


def read_footers(files: list[str]) -> tuple[list[Any], dict[str, str]]:
    """Read the footers of local Parquet files.

    Args:
        files: Their paths.

    Returns:
        The footers of the files that can be opened, and the reason for each file that cannot.
    """
    import pyarrow
    import pyarrow.parquet

    footers, damaged = [], {}
    for file in files:
        try:
            footers.append(pyarrow.parquet.read_metadata(file))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            if is_machine_error(error):
                raise
            damaged[file] = " ".join(str(error).split())[:200] or type(error).__name__
    return footers, damaged


def common_columns(footers: list[Any]) -> tuple[list[str], list[str]]:
    """Which columns all Parquet files have, and which they do not.

    Args:
        footers: Their footers.

    Returns:
        (columns that all files have with the same type, all other columns), in the order of the first file.
    """
    schemas = [footer.schema.to_arrow_schema() for footer in footers]
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    if all(schema.equals(schemas[0]) for schema in schemas[1:]):
        return names, []
    types = {name: [schema.field(name).type if name in schema.names else None for schema in schemas] for name in names}
    # Integers and texts of another width are converted by `datasets`.
    same = [name for name in names if None not in types[name] and len({_kind(kind) for kind in types[name]}) == 1]
    return same, [name for name in names if name not in same]


def _kind(kind: Any) -> Any:
    """What a type is, whatever its width: `datasets` converts integers, floats, texts and bytes of another width."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return frozenset((field.name, _kind(field.type)) for field in kind)
    tests = (types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_binary)
    found = next((test.__name__ for test in (*tests, types.is_large_binary) if test(kind)), kind)
    return found.replace("large_", "") if isinstance(found, str) else found


def by_row_group(dataset: Any, footers: list[Any]) -> Any:
    """Make each row group a shard, if there are at most 50,000, and declare the length of the stream.

    A worker then holds eight row groups instead of what it has read in advance of eight files, images of all files are
    mixed, and resuming does not read a file from its start.

    Args:
        dataset: `datasets.IterableDataset` of local Parquet files.
        footers: The footers of the files.

    Returns:
        The stream.
    """
    if sum(footer.num_row_groups for footer in footers) <= _MOST_SHARDS:
        dataset = dataset.reshard()
    declare_length(dataset, sum(footer.num_rows for footer in footers))
    return dataset


def stream_hub_dataset(name: str, config: str | None, split: str, revision: str | None, cache_dir: str | None) -> Any:
    """Stream a split of a data set on the Hub; if it is stored as Parquet, read it as `parquet_reading` says.

    `datasets.load_dataset` does the same, but which builder a data set has, and so which arguments it takes, is known
    only once the builder is made.

    Args:
        name: "user/name".
        config: Its configuration; None takes the default one.
        split: Name of the split.
        revision: Branch, tag or commit.
        cache_dir: Where `datasets` keeps what it downloads.

    Returns:
        `datasets.IterableDataset`.
    """
    import datasets

    builder = datasets.load_dataset_builder(name, config, revision=revision, cache_dir=cache_dir)
    for option, value in parquet_reading(remote=True).items():
        if getattr(builder.config, option, value) is None:
            setattr(builder.config, option, value)
    return builder.as_streaming_dataset(split=split)
