"""Reading Parquet as a stream without holding whole files.

By default a reader of `datasets` hands out whole row groups, and Arrow keeps what it has read ahead of a file until the
file is through: a worker with eight open files of half a gigabyte would hold gigabytes.
"""

from typing import Any

from .iterable import set_stream_size

_ROWS = 64
_MOST_SHARDS = 50_000  # `datasets` keeps and cuts lists of them


def parquet_reading(remote: bool = False) -> dict[str, Any]:
    """Arguments of `datasets`' Parquet builder: 64 rows at a time, nothing read ahead.

    Args:
        remote: The files are read over a network, where a column of a row group is best read in one piece.
    """
    import pyarrow.dataset

    buffered = {} if remote else {"use_buffered_stream": True, "buffer_size": 1 << 20}
    options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False, **buffered)
    return {"batch_size": _ROWS, "fragment_scan_options": options}


def by_row_group(dataset: Any, files: list[str]) -> Any:
    """Make every row group a shard: a worker then holds eight row groups, not eight files' worth of reading ahead,
    images are mixed over all files, and continuing does not read through the file before its place.

    Args:
        dataset: `datasets.IterableDataset` of local Parquet files.
        files: The files; their footers are read.
    """
    import pyarrow.parquet

    footers = [pyarrow.parquet.read_metadata(file) for file in files]
    if sum(footer.num_row_groups for footer in footers) <= _MOST_SHARDS:
        dataset = dataset.reshard()
    set_stream_size(dataset, sum(footer.num_rows for footer in footers))
    return dataset


def bound_parquet(dataset: Any) -> Any:
    """Set these on a stream that is loaded already, if it reads Parquet; the builder of a Hub name shows only then.

    Args:
        dataset: `datasets.IterableDataset`.
    """
    builder = getattr(getattr(dataset._ex_iterable, "generate_tables_fn", None), "__self__", None)
    config = getattr(builder, "config", None)
    for name, value in parquet_reading(remote=True).items():
        if getattr(config, name, value) is None:
            setattr(config, name, value)
    return dataset
