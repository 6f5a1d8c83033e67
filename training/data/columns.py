"""Which columns hold images and labels, and reading images without decoding them."""

from typing import Any

from ..errors import UserError
from .internals import with_features

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values")
KEY, URL = "__key__", "__url__"
"""Columns in which WebDataset shards name each example and its shard."""

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target", "category")


def find_image_column(dataset: Any) -> str:
    """The column that holds the images.

    It is a column with an `Image` feature; if there is none, a column of encoded bytes or of {bytes, path}; if there is
    none, a text column of paths with a usual name of an image column. Of several, the one with the most usual name is
    taken, else the first.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset`.

    Returns:
        The column's name.

    Raises:
        UserError: There is none; the message names the columns that exist.
    """
    import datasets

    features = _features(dataset)
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    binary = [name for name, feature in features.items() if _is_encoded(feature)]
    paths = [
        name
        for name, feature in features.items()
        if name.lower() in _IMAGE_NAMES and getattr(feature, "dtype", None) in ("string", "large_string")
    ]
    for candidates in (images, binary, paths):
        if candidates:
            return _most_usual(candidates, _IMAGE_NAMES)
    columns = ", ".join(features) or "none"
    raise UserError(f"no image column in the data set; its columns are: {columns} (name one with --image_column)")


def check_image_column(dataset: Any, image_column: str | None) -> str:
    """The column that holds the images, as named or as `find_image_column` detects it.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset`.
        image_column: Its name; None detects it.

    Raises:
        UserError: There is no such column; the message names the columns that exist.
    """
    if image_column is None:
        return find_image_column(dataset)
    columns = list(_features(dataset))
    if image_column not in columns:
        raise UserError(f"no column {image_column!r} in the data set; its columns are: {', '.join(columns) or 'none'}")
    return image_column


def find_label_column(dataset: Any) -> str | None:
    """The column that holds class labels, or None.

    It is a column with a `ClassLabel` feature; if there is none, one with a usual name of a label column that holds
    whole numbers; if there is none, one of such a name that holds texts or true and false.
    """
    import datasets

    features = _features(dataset)
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in features.items() if _is_label_name(name)}
    integers = [name for name, kind in kinds.items() if "int" in kind and name not in classes]
    others = [name for name, kind in kinds.items() if kind in ("string", "large_string", "bool")]
    for candidates in (classes, integers, others):
        if candidates:
            return _most_usual(candidates, _LABEL_NAMES)
    return None


def empty_label_columns(dataset: Any) -> list[str]:
    """Columns with a usual name of a label column whose type says that they hold nothing."""
    features = getattr(dataset, "features", None) or {}
    return [
        name for name, feature in features.items() if _is_label_name(name) and getattr(feature, "dtype", None) == "null"
    ]


def without_decoding(dataset: Any, *columns: str) -> Any:
    """Some columns of a data set, with images as {bytes, path}.

    Otherwise `datasets` decodes images in its iterator, where one unreadable image ends the whole pass.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset`.
        *columns: The columns to keep; none keeps all.
    """
    import datasets

    dataset = dataset.with_format(None)
    if columns:
        dataset = dataset.select_columns(list(columns))
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def _features(dataset: Any) -> dict[str, Any]:
    """Features by column. If a stream declares none, they are inferred from its first example."""
    return dict(getattr(with_features(dataset), "features", None) or {})


def _is_label_name(name: str) -> bool:
    return name.lower() in _LABEL_NAMES


def _is_encoded(feature: Any) -> bool:
    """Whether a column holds encoded bytes or {bytes, path}."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _most_usual(names: list[str], usual: tuple[str, ...]) -> str:
    """The name that comes first in `usual`; if none is in it, the first name."""
    return min(names, key=lambda name: usual.index(name.lower()) if name.lower() in usual else len(usual))


def own_column(dataset: Any, image_column: str | None) -> str | None:
    """`image_column` if this part of a mixture has it, else None (to be detected): the parts may differ."""
    return image_column if image_column in (getattr(dataset, "column_names", None) or [image_column]) else None
