"""What no public function of `datasets` tells or does: the only place that touches its private attributes.

Each function does without the attribute where a version has none: by a public way that is slower, or with one line
that says what is then not known.
"""

import copy
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError

logger = logging.getLogger(__name__)

# Classes by which `.shuffle()` of a stream works; their names differ between versions, so none is imported.
_SHUFFLES = ("Shuffled", "InterleavedShards")
_MISSING = object()


def table_rows(dataset: Any) -> pa.ChunkedArray | None:
    """Which rows of `dataset.data` a `datasets.Dataset` has, in its order.

    Returns:
        Row numbers; None if it has all of them in their order, or if this version of `datasets` does not tell.
    """
    indices = getattr(dataset, "_indices", None)
    return None if indices is None else indices.column(0)


def image_paths(dataset: Any, column: str) -> list[str | None] | None:
    """The path of each row's undecoded image, without reading the images.

    Args:
        dataset: A `datasets.Dataset`.
        column: Its column with images.

    Returns:
        None if the images are stored without paths.
    """
    stored = dataset.data.column(column)
    if not hasattr(stored.type, "get_field_index") or stored.type.get_field_index("path") < 0:
        return None
    if hasattr(dataset, "_indices"):
        paths, rows = pc.struct_field(stored, "path"), table_rows(dataset)
        found: list[str | None] = (paths if rows is None else paths.take(rows)).to_pylist()
        return found
    # Slower: reads the images too, a thousand at a time.
    batches = dataset.select_columns([column]).with_format("arrow").iter(1000)
    return [path for batch in batches for path in pc.struct_field(batch.column(column), "path").to_pylist()]


def set_info(dataset: Any, info: Any) -> None:
    """Replace the `info` of a data set or stream, which objects made from it keep.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`.
        info: A `datasets.DatasetInfo` with all fields of the present one, or of a class derived from it.

    Raises:
        UserError: This version of `datasets` keeps it elsewhere.
    """
    dataset._info = info
    if dataset.info is not info:
        raise UserError("this version of `datasets` does not keep what is known of a data set; install datasets 5.2")


def with_features(dataset: Any) -> Any:
    """A data set whose features are declared: of a stream that declares none, they are those of its first example."""
    if getattr(dataset, "features", None) is not None:
        return dataset
    resolve = getattr(dataset, "_resolve_features", None)
    if resolve is not None:
        return resolve()
    import datasets

    first = next(iter(dataset), None)
    return dataset if first is None else dataset.cast(datasets.Dataset.from_list([first]).features)


def fingerprint_of(dataset: Any) -> str | None:
    """The hash by which `datasets` tells a data set's content from another's; None for a stream, or if it has none."""
    found = getattr(dataset, "_fingerprint", None)
    return None if found is None else str(found)


def with_column(dataset: Any, name: str, column: pa.ChunkedArray, mark: str) -> Any:
    """A `datasets.Dataset` with other values in one column of its table; nothing else is copied.

    Args:
        dataset: A `datasets.Dataset`.
        name: The column.
        column: New values for every row of `dataset.data`, of the column's type.
        mark: Added to the fingerprint.
    """
    import datasets

    if not hasattr(dataset, "_indices"):
        if len(dataset) != len(dataset.data):
            raise UserError(f"this version of `datasets` cannot replace {name!r} in a part of a data set; install 5.2")
        indices = None
    else:
        indices = dataset._indices
    table = dataset.data.table
    index = table.schema.get_field_index(name)
    return datasets.Dataset(
        datasets.table.InMemoryTable(table.set_column(index, table.schema.field(index), column)),
        info=dataset.info.copy(),
        split=dataset.split,
        indices_table=indices,
        fingerprint=f"{fingerprint_of(dataset) or uuid.uuid4().hex}-{mark}",
    )


def unshuffled(stream: Any) -> Any:
    """A stream without a final `.shuffle()` and without `split_dataset_by_node`.

    Args:
        stream: A `datasets.IterableDataset`, which stays as it is.

    Raises:
        UserError: It was shuffled and then changed, which cannot be taken back.
    """
    outer, shared = getattr(stream, "_ex_iterable", _MISSING), getattr(stream, "_distributed", _MISSING)
    if outer is _MISSING or shared is _MISSING:
        logger.warning(
            "this version of `datasets` does not tell whether a stream was shuffled or divided among processes: give "
            "it without .shuffle() and split_dataset_by_node, for the loader does both"
        )
        return stream
    inner: Any = outer
    while _shuffles(inner):
        inner = inner.ex_iterable
    if any(_shuffles(layer) for layer in _layers(inner)):
        raise UserError(
            "this stream was shuffled and then changed; the loader shuffles by itself, in a way that can be continued "
            "exactly: give it the stream without .shuffle()"
        )
    if inner is outer and shared is None:
        return stream
    plain = copy.copy(stream)
    plain._ex_iterable, plain._distributed = inner, None
    return plain


def _shuffles(layer: Any) -> bool:
    """Whether a layer of a stream shuffles examples."""
    return any(word in type(layer).__name__ for word in _SHUFFLES)


def _layers(layer: Any) -> Iterator[Any]:
    """A layer of a stream and all layers below it."""
    yield layer
    for child in (getattr(layer, "ex_iterable", None), *getattr(layer, "ex_iterables", ())):
        if child is not None:
            yield from _layers(child)
