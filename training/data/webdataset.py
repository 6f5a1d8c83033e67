"""Labels of WebDataset shards: from `.cls` files, or `label`, `cls` or `class` in `.json` files."""

from collections.abc import Callable
from typing import Any

from .columns import find_image_column

_JSON_KEYS = ("label", "cls", "class")


def with_labels(dataset: Any) -> Any:
    """Add a `label` column to a WebDataset whose `cls` or `json` column holds labels; images are not decoded.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset` of the webdataset builder.

    Returns:
        The data set with a `label` column; unchanged if it has one already or holds no labels.
    """
    import datasets

    features = dataset.features or {}
    if "label" in features:
        return dataset
    if "cls" in features:
        return _undecoded(dataset, lambda data: data.rename_column("cls", "label"))
    described = features.get("json")
    if not isinstance(described, dict):
        return dataset
    key = next((key for key in _JSON_KEYS if key in described), None)
    if key is None:
        return dataset
    if isinstance(dataset, datasets.Dataset):
        labels = [entry[key] for entry in dataset.select_columns(["json"])["json"]]
        return dataset.add_column("label", labels, feature=described[key])

    def labelled(data: Any) -> Any:
        return data.map(_JsonLabel(key), features=datasets.Features({**data.features, "label": described[key]}))

    return _undecoded(dataset, labelled)


def _undecoded(dataset: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a change to a stream without letting `datasets` decode its images and encode them again."""
    import datasets

    column = find_image_column(dataset)
    image = dataset.features[column]
    return change(dataset.cast_column(column, datasets.Image(decode=False))).cast_column(column, image)


class _JsonLabel:
    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        return {"label": example["json"][self.key]}
