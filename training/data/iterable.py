"""Map-style data sets as streams, and the length that a stream declares."""

from typing import Any


def stream_size(dataset: Any) -> int | None:
    """Number of examples of a stream, where its description tells."""
    splits = getattr(dataset.info, "splits", None) or {}
    described = splits.get(str(dataset.split or "train"))
    return getattr(described, "num_examples", None)


def as_stream(dataset: Any, shards: int) -> Any:
    """A map-style `datasets.Dataset` as a stream of at most `shards` shards that tells its length."""
    stream = dataset.to_iterable_dataset(num_shards=max(1, min(shards, len(dataset))))
    set_stream_size(stream, len(dataset))
    return stream


def set_stream_size(dataset: Any, size: int) -> None:
    """Write the number of examples where `stream_size` finds it."""
    import datasets

    split = str(dataset.split or "train")
    dataset.info.splits = datasets.SplitDict({split: datasets.SplitInfo(name=split, num_examples=size)})
