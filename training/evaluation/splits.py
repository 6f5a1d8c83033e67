"""Which images a task fits on and which it scores, from a data set's name or from `datasets` objects."""

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError

FIT_NAMES = ("train", "training")
SCORE_NAMES = ("test", "validation", "valid", "val", "dev")
HELD_OUT_FRACTION = 0.2
"""Share of the images that is held out and scored if a data set has one split."""
HELD_OUT = "held-out"


@dataclass
class Splits:
    """The two splits of an evaluation.

    Attributes:
        name: Name of the data set.
        fit: `datasets.Dataset` or `IterableDataset` to fit on.
        fit_split: Name of its split.
        score: `datasets.Dataset` or `IterableDataset` to score.
        score_split: Name of its split.
        notes: What was decided about them, for the report.
    """

    name: str
    fit: Any
    fit_split: str
    score: Any
    score_split: str
    notes: list[str] = field(default_factory=list)


def resolve_splits(
    dataset: Any,
    test_dataset: Any = None,
    *,
    split: str | None = None,
    streaming: bool = False,
    seed: int = 0,
    image: str | None = None,
    label: str | None = None,
    trust_paths: bool = False,
) -> Splits:
    """Find the split to fit on and the split to score.

    If there is one split only, a part of it is held out by the content of its images and scored; a note says so.

    Args:
        dataset: Name or folder of a data set, `DatasetDict`, or `Dataset`.
        test_dataset: As `dataset`; scored instead of one of its splits.
        split: Name of the split to score; default: test, or validation if there is no test split.
        streaming: Read data sets that are given by name as streams.
        seed: Decides which images of a single split are held out.
        image: Column that holds the images; default: found by its type.
        label: Column that holds the labels, the same share of each of which is held out; default: found by its type.
        trust_paths: Follow paths and addresses in the rows of data sets that are given by name wherever they lead.

    Raises:
        UserError: a split is missing; the message names the ones that exist.
    """
    from ..data.left_out import tell

    loading = {
        "streaming": streaming,
        "image_column": image,
        "only_if_there": True,
        "trust_paths": trust_paths,
        "told": functools.partial(tell, columns=False),  # a task may use several columns of images
    }
    name = _dataset_name(dataset)
    only = _only_split(dataset) if test_dataset is None and split is None else None
    if only is not None:
        return _with_a_part_held_out(dataset, name, only, loading, seed, label)
    fit, fit_split = _take(dataset, name, FIT_NAMES, "fit on", loading)
    if test_dataset is None:
        score, score_split = _take(dataset, name, (split,) if split else SCORE_NAMES, "score", loading)
    else:
        wanted = (split,) if split else (*SCORE_NAMES, *FIT_NAMES)
        score, score_split = _take(test_dataset, _dataset_name(test_dataset), wanted, "score", loading)
    for part, which in ((fit, fit_split), (score, score_split)):
        if hasattr(part, "__len__") and len(part) == 0:
            raise UserError(f"split {which} of {name} is empty")
    return Splits(name, fit, fit_split, score, score_split, _accounts(fit, score))


def _accounts(*parts: Any) -> list[str]:
    """What was decided about the data sets of the splits, and what is left out of them."""
    from ..data.left_out import account_of

    return list(dict.fromkeys(line for part in parts for line in account_of(part).lines(columns=False)))


def is_streaming(dataset: Any) -> bool:
    """Whether a data set is a stream, which can only be read from start to end."""
    return not hasattr(dataset, "__len__")


def image_column(dataset: Any, asked: str | None) -> str:
    """Find the column that holds the images.

    Raises:
        UserError: there is no such column.
    """
    from ..data.columns import find_image_column

    if asked is None:
        return find_image_column(dataset)
    check_column(dataset, asked, "image_column")
    return asked


def label_column(dataset: Any, asked: str | None) -> str:
    """Find the column that holds the class labels.

    Raises:
        UserError: there is none; the message names the columns that exist.
    """
    from ..data.columns import find_label_column

    if asked is not None:
        check_column(dataset, asked, "label_column")
        return asked
    found = find_label_column(dataset)
    if found is None:
        raise UserError(f"no label column among {', '.join(columns_of(dataset))}; name it with label_column")
    return found


def columns_of(dataset: Any) -> list[str]:
    """Names of a data set's columns. If a stream declares none, they are those of its first row."""
    if dataset.column_names:
        return list(dataset.column_names)
    return list(next(iter(dataset), {}))


def check_column(dataset: Any, name: str, option: str) -> None:
    """Raise a UserError that lists the columns, unless `name` is one of them."""
    if name not in columns_of(dataset):
        raise UserError(f"{option} {name!r} does not exist; the columns are {', '.join(columns_of(dataset))}")


def undecoded(dataset: Any, *columns: str | None) -> Any:
    """Select columns of a data set and leave its images encoded (bytes or path)."""
    from ..data.columns import without_decoding
    from ..data.origin import confined_stream

    return confined_stream(without_decoding(dataset, *dict.fromkeys(name for name in columns if name is not None)))


def _dataset_name(dataset: Any) -> str:
    if isinstance(dataset, str | os.PathLike):
        path = Path(dataset)
        return path.resolve().stem if path.exists() else str(dataset)
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()), None)
    name = getattr(getattr(dataset, "info", None), "dataset_name", None)
    return name or "dataset"


def _only_split(dataset: Any) -> str | None:
    """Name of the split of a data set that has one split; None if it has several."""
    if isinstance(dataset, str | os.PathLike):
        from ..data.sources import split_names

        names = list(split_names(str(dataset)))
    elif isinstance(dataset, dict):
        names = list(dataset)
    else:
        names = [str(getattr(dataset, "split", None) or FIT_NAMES[0])]
    return names[0] if len(names) == 1 else None


def _with_a_part_held_out(
    dataset: Any, name: str, split: str, loading: dict[str, Any], seed: int, label: str | None
) -> Splits:
    """Fit on one part of the only split and score the other."""
    from ..data.columns import find_label_column
    from ..data.held_out import hold_out

    whole, _ = _take(dataset, name, (split,), "fit on", loading)
    label = label or find_label_column(whole)
    if label is not None and (is_streaming(whole) or not _is_class(whole, label)):
        label = None
    try:
        fit, score = hold_out(whole, HELD_OUT_FRACTION, seed, loading["image_column"], label)
    except UserError as error:
        raise UserError(
            f"{name} has one split, {split}, and {error}; give another data set with test_dataset"
        ) from error
    share = f"{100 * HELD_OUT_FRACTION:.0f} %" + (" of every class" if label is not None else "")
    count = f" ({len(score)} images)" if not is_streaming(score) else ""
    note = f"{split} is the only split: {share}{count} held out by content (seed {seed}) and scored; the rest fitted on"
    return Splits(name, fit, split, score, HELD_OUT, [note, *_accounts(whole)])


def _is_class(dataset: Any, column: str) -> bool:
    """Whether a column holds one class per image, and not, for example, a label map."""
    from datasets import ClassLabel, Value

    feature = (dataset.features or {}).get(column)
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "float" not in feature.dtype)


def _take(dataset: Any, name: str, wanted: tuple[str, ...], purpose: str, loading: dict[str, Any]) -> tuple[Any, str]:
    """Load the first of the wanted splits that exists, and return it with its name."""
    if isinstance(dataset, str | os.PathLike):
        from ..data.sources import load_image_stream, split_names

        existing = list(split_names(str(dataset)))
        chosen = _first(wanted, existing, name, purpose)
        return load_image_stream(str(dataset), split=chosen, **loading), chosen
    if isinstance(dataset, dict):
        chosen = _first(wanted, list(dataset), name, purpose)
        return dataset[chosen], chosen
    if not hasattr(dataset, "select_columns"):
        raise UserError(f"a data set must be a name, a Dataset or a DatasetDict, not {type(dataset).__name__}")
    split = getattr(dataset, "split", None)
    return dataset, str(split) if split else wanted[0]


def _first(wanted: tuple[str, ...], existing: list[str], name: str, purpose: str) -> str:
    for split in wanted:
        if split in existing:
            return split
    raise UserError(
        f"{name} has no split to {purpose} ({' or '.join(wanted[:2])}); its splits are {', '.join(existing) or 'none'}"
    )
