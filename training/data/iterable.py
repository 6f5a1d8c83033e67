"""Map-style data sets as streams, and the length of both."""

from typing import Any


def length_of(dataset: Any) -> int | None:
    """Number of examples of a data set or stream.

    Args:
        dataset: Anything with a length, or a `datasets.IterableDataset`.

    Returns:
        Its length; of a stream the number that its `info` declares for its split; None if there is none (`datasets`
        writes 0 for a number that it does not know).
    """
    if hasattr(dataset, "__len__"):
        return len(dataset)
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    declared = splits.get(str(getattr(dataset, "split", None) or "train"))
    return getattr(declared, "num_examples", None) or None


def as_stream(dataset: Any, shards: int) -> Any:
    """A map-style `datasets.Dataset` as a stream that declares its length.

    Args:
        dataset: A `datasets.Dataset`.
        shards: Largest number of shards; a shard has at least one example.

    Returns:
        A `datasets.IterableDataset`.
    """
    stream = dataset.to_iterable_dataset(num_shards=max(1, min(shards, len(dataset))))
    declare_length(stream, len(dataset))
    return stream


def declare_length(stream: Any, length: int) -> None:
    """Write a stream's number of examples into its `info`, where `length_of` reads it."""
    import datasets

    split = str(stream.split or "train")
    stream.info.splits = datasets.SplitDict({split: datasets.SplitInfo(name=split, num_examples=length)})
