"""Which columns hold images and labels, and how to read the images without decoding them."""

from typing import Any

from ..errors import UserError

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixel_values")
KEY, URL = "__key__", "__url__"
"""Columns in which WebDataset shards name each example and its shard."""

_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target", "category")


def find_image_column(dataset: Any) -> str:
    """The column that holds the images.

    By type first (an `Image` feature; of several the one with the most usual name, else the first), then a column of
    encoded bytes or {bytes, path}, then a text column with the name of an image column, which holds paths.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset`.

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
    for found in (images, binary, paths):
        if found:
            return min(found, key=lambda name: (_rank(name, _IMAGE_NAMES), found.index(name)))
    columns = ", ".join(features) or "none"
    raise UserError(f"no image column in the data set; its columns are: {columns} (name one with --image_column)")


def check_image_column(dataset: Any, image_column: str | None) -> str:
    """`image_column` if it exists, the one found if it is None.

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
    """The column that holds class labels, or None: a `ClassLabel`, else an integer column with a label's name."""
    import datasets

    features = _features(dataset)
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    integers = [
        name
        for name, feature in features.items()
        if name.lower() in _LABEL_NAMES and "int" in str(getattr(feature, "dtype", ""))
    ]
    for found in (classes, integers):
        if found:
            return min(found, key=lambda name: (_rank(name, _LABEL_NAMES), found.index(name)))
    return None


def without_decoding(dataset: Any, image_column: str, *also: str) -> Any:
    """The data set with its images as {bytes, path}, and only the columns that are needed.

    `datasets` would decode inside its iterator, where one broken image ends the whole pass.
    """
    import datasets

    dataset = dataset.with_format(None).select_columns([image_column, *also])
    if isinstance((dataset.features or {}).get(image_column), datasets.Image):
        dataset = dataset.cast_column(image_column, datasets.Image(decode=False))
    return dataset


def _features(dataset: Any) -> dict[str, Any]:
    """Features by column; a stream that does not tell is asked for its first example's."""
    features = getattr(dataset, "features", None)
    if features is None and hasattr(dataset, "_resolve_features"):
        features = dataset._resolve_features().features
    return dict(features or {})


def _is_encoded(feature: Any) -> bool:
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _rank(name: str, usual: tuple[str, ...]) -> int:
    return usual.index(name.lower()) if name.lower() in usual else len(usual)


def own_column(dataset: Any, image_column: str | None) -> str | None:
    """`image_column` for a part that has it, else None (to be found): the parts of a mixture may differ."""
    return image_column if image_column in (getattr(dataset, "column_names", None) or [image_column]) else None
