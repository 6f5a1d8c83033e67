"""Reading Parquet as a stream without holding whole files in memory.

By default `datasets` reads whole row groups, and Arrow keeps what it has read in advance until the end of the file. A
worker with eight open files of half a gigabyte would hold gigabytes.
"""

from typing import Any

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


def by_row_group(dataset: Any, files: list[str]) -> Any:
    """Make each row group a shard, if there are at most 50,000, and declare the length of the stream.

    A worker then holds eight row groups instead of what it has read in advance of eight files, images of all files are
    mixed, and resuming does not read a file from its start.

    Args:
        dataset: `datasets.IterableDataset` of local Parquet files.
        files: The files; their footers are read.

    Returns:
        The stream.
    """
    import pyarrow.parquet

    footers = [pyarrow.parquet.read_metadata(file) for file in files]
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
