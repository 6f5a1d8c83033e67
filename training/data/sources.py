"""Images as a `datasets` object: digits, image folders, Parquet files, WebDataset shards, data sets on the Hub."""

import contextlib
import dataclasses
import logging
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, hub_refusal
from . import digits
from .columns import check_image_column, empty_label_columns, own_column, without_decoding
from .content import describe_files
from .image_folder import ImageFolder
from .iterable import as_stream, length_of, readable_examples
from .left_out import Account, attach, tell
from .local import LocalSource, locate, near_data_sets
from .parquet import stream_hub_dataset


def load_image_stream(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    streaming: bool = False,
    *,
    revision: str | None = None,
    config: str | None = None,
    cache_dir: str | None = None,
    image_column: str | None = None,
    only_if_there: bool = False,
    trust_paths: bool = False,
    told: Callable[[str, Account], object] | None = tell,
) -> Any:
    """Load a data set of images without decoding them.

    What the data set was taken for, and what of it is left out, is logged, and kept with the result: see
    `left_out.account_of`.

    Args:
        name_or_path: "digits"; a folder of images (subfolders are classes; train/ validation/ test/ are splits); a
            Parquet file or WebDataset .tar file, several of them as a glob or with braces (`shard-{000..099}.tar`), or
            a folder of them (splits are told from the names of files or subfolders); a folder written by
            `save_to_disk`; or the name of a data set on the Hub, `user/name` or `user/name:config`.
        split: Name of the split.
        streaming: Whether to return an `IterableDataset`, which reads while it is used, instead of downloading first.
        revision: Branch, tag or commit of a Hub data set.
        config: Configuration of a Hub data set.
        cache_dir: Where `datasets` keeps what it downloads and converts; None is its default.
        image_column: Column of the images; None detects it by its type or name.
        only_if_there: Detect the column of the images if `image_column` does not exist.
        trust_paths: Follow paths and addresses in the rows of a data set wherever they lead; else only below its own
            folder or repository, and other images count as unreadable.
        told: Gets the data set's name and account; None tells nobody, for callers that report the account themselves.

    Returns:
        `datasets.Dataset` or `datasets.IterableDataset` with an `Image` column and, if there are labels, a `ClassLabel`
        or integer label column.

    Raises:
        UserError: There is no such data set, split or image column, or the split is empty.
    """
    import datasets

    from ladder_model_cards.secrets import hide_secrets

    name = os.fspath(name_or_path)
    rule: Any = None
    if _is_embedded(name):
        _check_split(name, split, list(digits.SPLITS))
        dataset, account = digits.load_digits_split(split), Account(f"the embedded digits, split {split}")
        dataset = as_stream(dataset, 8) if streaming else dataset
    else:
        from .origin import confined, folder_rule, hub_rule

        source = locate(name)
        if source is None:
            dataset = _load_hub(name, split, streaming, revision, config, cache_dir)
            account = Account(f"a data set on the Hub, split {split}")
            rule = hub_rule(_hub_name(name, None)[0], cache_dir)
        else:
            _check_split(name, split, source.splits)
            dataset, account = source.load(split, streaming, cache_dir)
            # The paths of an image folder are not in it: they were listed, and links in them are followed.
            rule = None if isinstance(source, ImageFolder) else folder_rule(source.folder)
    if _is_empty(dataset):
        raise UserError(f"{name}: the split {split!r} is empty")
    column = check_image_column(dataset, own_column(dataset, image_column) if only_if_there else image_column)
    feature = (dataset.features or {}).get(column)
    if feature is not None and not isinstance(feature, datasets.Image):  # encoded bytes, {bytes, path}, or a path
        dataset = dataset.cast_column(column, datasets.Image())
    images = [name for name, kind in (dataset.features or {}).items() if isinstance(kind, datasets.Image)]
    account.unused_columns = [name for name in images if name != column]
    account.add("label columns that hold nothing", empty_label_columns(dataset))
    if rule is not None:
        dataset = confined(dataset, dataclasses.replace(rule, trusted=trust_paths))
    dataset.info.dataset_name = name
    attach(dataset, account)
    if told is not None:
        told(hide_secrets(name), account)
    return dataset


def split_names(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, config: str | None = None
) -> list[str]:
    """The splits of a data set.

    Args:
        name_or_path: As for `load_image_stream`.
        revision: Branch, tag or commit of a Hub data set.
        config: Configuration of a Hub data set.

    Returns:
        Their names, as `load_image_stream` takes them.

    Raises:
        UserError: There is no such data set.
    """
    name = os.fspath(name_or_path)
    if _is_embedded(name):
        return list(digits.SPLITS)
    source = locate(name)
    if source is not None:
        return list(source.splits)
    import datasets

    name, config = _hub_name(name, config)
    try:
        with _hub_access():
            return list(datasets.get_dataset_split_names(name, config, revision=revision))
    except Exception as error:
        raise _hub_error(name, error) from error


def hub_dataset(name_or_path: str | os.PathLike[str], revision: str | None = None) -> tuple[str | None, str | None]:
    """The name and commit of a data set on the Hub.

    Args:
        name_or_path: As for `load_image_stream`.
        revision: Branch, tag or commit.

    Returns:
        ("user/name", full commit); (None, None) for a local or embedded data set; no commit if the Hub does not answer.
    """
    name = os.fspath(name_or_path)
    if _is_embedded(name) or locate(name) is not None:
        return None, None
    from huggingface_hub import HfApi

    hub_name = _hub_name(name, None)[0]
    try:
        return hub_name, HfApi().dataset_info(hub_name, revision=revision, timeout=10).sha
    except Exception:  # the commit is only written down: a run without it is better than none
        return hub_name, None


def local_files(name_or_path: str | os.PathLike[str], split: str) -> tuple[Path, list[str]] | None:
    """The folder of a local data set and the files of a split below it; None for the digits and for the Hub."""
    source = local_source(name_or_path)
    return None if source is None else (source.folder, source.files(split))


def local_source(name_or_path: str | os.PathLike[str]) -> LocalSource | None:
    """The folder, splits and files of a local data set; None for the digits and for the Hub.

    Raises:
        UserError: It is a path, and there is no data set that can be read.
    """
    name = os.fspath(name_or_path)
    return None if _is_embedded(name) else locate(name)


def data_identity(name_or_path: str | os.PathLike[str], split: str, revision: str | None = None) -> str | None:
    """What tells two states of a split apart: a hash of its local files, or the commit of its repository on the Hub.

    Args:
        name_or_path: As for `load_image_stream`.
        split: Name of the split.
        revision: Branch, tag or commit.

    Returns:
        None for the embedded data set, and if the Hub does not answer.
    """
    files = local_files(name_or_path, split)
    if files is not None:
        return str(describe_files(*files, most_listed=0)["hash"])
    return hub_dataset(name_or_path, revision)[1]


def _is_embedded(name: str) -> bool:
    return name == "digits" and not Path(name).exists()


def _is_empty(dataset: Any) -> bool:
    length = length_of(dataset)
    if length is not None:
        return length == 0
    return next(readable_examples(without_decoding(dataset), []), None) is None


@contextlib.contextmanager
def _hub_access() -> Iterator[None]:
    """Request data sets from the Hub in this block.

    If the Hub's host name cannot be resolved, huggingface_hub still retries for half a minute and logs two lines each
    time. This context sets its offline mode in that case, so that `datasets` uses its cache at once.
    """
    import datasets.config
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, before = logger.level, (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    logger.setLevel(max(logger.getEffectiveLevel(), logging.ERROR))
    try:
        if not before[0] and not _can_be_resolved(constants.ENDPOINT):
            constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        logger.setLevel(level)


def _can_be_resolved(endpoint: str) -> bool:
    """Whether the endpoint's host name can be resolved. With a proxy it need not be: the proxy resolves it."""
    if urllib.request.getproxies() or os.environ.get("ALL_PROXY"):
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, None)
    except OSError:
        return False
    return True


def _load_hub(
    name: str, split: str, streaming: bool, revision: str | None, config: str | None, cache_dir: str | None
) -> Any:
    import datasets

    hub_name, config = _hub_name(name, config)
    try:
        with _hub_access():
            if streaming:
                return stream_hub_dataset(hub_name, config, split, revision, cache_dir)
            return datasets.load_dataset(hub_name, config, split=split, revision=revision, cache_dir=cache_dir)
    except Exception as error:
        raise _hub_error(name, error) from error


def _hub_name(name: str, config: str | None) -> tuple[str, str | None]:
    hub_name, _, after = name.partition(":")
    return hub_name, config or after or None


def _hub_error(name: str, error: Exception) -> UserError:
    kind, near = type(error).__name__, did_you_mean(near_data_sets(Path(name)))
    if (refusal := hub_refusal(error, f"datasets/{name}")) is not None:
        return UserError(f"{name}: {refusal}")
    if kind == "DatasetNotFoundError" and "Revision" in str(error):
        return UserError(f"{name}: {str(error).rstrip('.')}; check --revision")
    if kind == "DatasetNotFoundError":
        return UserError(f"{name}: no such data set, here or on the Hub (a private one needs `hf auth login`){near}")
    if isinstance(error, ConnectionError) or "Offline" in kind or "Connection" in kind:
        return UserError(f"{name}: not found here, and the Hub cannot be reached{near}")
    return UserError(f"{name}: {_root_cause(error)}")


def _check_split(name: str, split: str, splits: list[str]) -> None:
    if split not in splits:
        raise UserError(f"{name}: no split {split!r}; its splits are: {', '.join(splits)}")


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
