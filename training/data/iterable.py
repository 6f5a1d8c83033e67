"""Map-style data sets as streams, the length of both, and streams with damaged shards."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from ..errors import is_machine_error
from .columns import KEY, URL

_TYPES = "/datasets/features/"
_READERS = ("/datasets/packaged_modules/", _TYPES)
"""Code of `datasets` that reads shards, and that gives their values the types of the first shard."""

_QUOTED = re.compile(r"""b?'[^']*'|b?"[^"]*\"""")


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


class DamagedShard(NamedTuple):
    """A shard that cannot be read to its end.

    Attributes:
        file: The shard; "" if it is not known.
        place: Where in it, for example the name of a file in an archive.
        reason: What is wrong, in one line, without content of the shard.
    """

    file: str
    place: str
    reason: str

    def __str__(self) -> str:
        where = f" ({self.place})" if self.place else ""
        return f"the rest of {self.file or 'a shard'} cannot be read: {self.reason}{where}"


def damaged_shard(error: BaseException) -> DamagedShard | None:
    """What is wrong with a shard, from an error that was raised while it was read.

    Args:
        error: Raised by the iterator of a `datasets.IterableDataset`, or by `datasets.load_dataset`.

    Returns:
        None if the shard is not the cause: the machine or the network failed, or code that is not part of reading.
    """
    frames: list[FrameType] = []
    readers = False
    cause: BaseException | None = error
    while cause is not None:
        error = cause
        traceback = cause.__traceback__
        while traceback is not None:
            frames.append(traceback.tb_frame)
            where = traceback.tb_frame.f_code.co_filename.replace("\\", "/")
            readers |= any(folder in where for folder in _READERS)
            traceback = traceback.tb_next
        cause = cause.__cause__
    if not readers or is_machine_error(error):
        return None
    known: dict[str, Any] = {}
    for frame in frames:
        if any(folder in frame.f_code.co_filename.replace("\\", "/") for folder in _READERS):
            known |= {name: frame.f_locals[name] for name in ("file", "tar_path", "filename") if name in frame.f_locals}
        elif isinstance(example := frame.f_locals.get("example"), dict):
            known |= {name: example[name] for name in (KEY, URL) if example.get(name)}
    typed = any(_TYPES in frame.f_code.co_filename.replace("\\", "/") for frame in frames)
    reason = "a value is not of the type of its column" if typed else _without_content(error)
    file = known.get("tar_path") or known.get(URL) or known.get("file") or ""
    return DamagedShard(str(file), str(known.get("filename") or known.get(KEY) or ""), reason)


def _without_content(error: BaseException) -> str:
    """An error's message in one line; what it quotes is replaced, for it may be content of the file."""
    name = type(error).__name__
    if name == "CastError":
        return "its columns are not those of the first shard"
    text = _QUOTED.sub("...", " ".join(str(error).split()))
    return f"{name}: {text}"[:200] if text else name


def readable_examples(
    stream: Any,
    damaged: list[DamagedShard],
    confine: bool = True,
    *,
    rank: int = 0,
    processes: int = 1,
    order: Callable[[int], Iterable[int]] = range,
    open_groups: int = 1,
) -> Iterator[Any]:
    """The examples of a stream without the rest of shards that are damaged.

    Args:
        stream: A `datasets.IterableDataset`. A worker of a torch `DataLoader` gets its share of the shards.
        damaged: Gets the damaged shards, each in one process and worker only.
        confine: Mark paths in the examples that lead outside of the data set (see `origin.PathRule`).
        rank: Number of this process.
        processes: How many processes share the examples.
        order: Gives the order of so many shards, or groups of one shard per worker.
        open_groups: Groups that are read in turn.
    """
    import datasets
    from torch.utils.data import get_worker_info

    from .origin import origin_of

    rule = origin_of(stream).path_rule if confine else None
    worker = get_worker_info()
    if worker is not None:
        # `datasets` divides the shards of every group among the workers, and warns if a worker gets none.
        datasets.utils.logging.set_verbosity_error()
    all_read_all = stream.num_shards < processes  # then each process keeps every `processes`-th example
    if processes > 1 and not all_read_all:
        stream = stream.shard(num_shards=processes, index=rank)
    count = -(-stream.num_shards // (1 if worker is None else worker.num_workers))
    found = damaged if rank == 0 or not all_read_all else []
    waiting = [_of_group(stream, count, int(group), found) for group in reversed(list(order(count)))]
    reading: deque[Iterator[Any]] = deque()
    position = 0
    while waiting or reading:
        while waiting and len(reading) < open_groups:
            reading.append(waiting.pop())
        group = reading.popleft()
        example = next(group, None)
        if example is None:
            continue
        reading.append(group)
        if not all_read_all or position % processes == rank:
            yield example if rule is None else rule.confine_row(example)
        position += 1


def unopened_shards(stream: Any) -> list[DamagedShard]:
    """Shards of a stream that could not be opened when it was loaded, and are not in it."""
    from .origin import origin_of

    return [DamagedShard(file, "", reason) for file, reason in origin_of(stream).damaged]


def _of_group(stream: Any, groups: int, group: int, damaged: list[DamagedShard]) -> Iterator[Any]:
    """The examples of a group of shards, to the end or to where it is damaged."""
    examples = iter(stream.shard(num_shards=groups, index=group))
    while True:
        try:
            example = next(examples)
        except StopIteration:
            return
        except Exception as error:
            found = damaged_shard(error)
            if found is None:
                raise
            damaged.append(found)
            return
        yield example
