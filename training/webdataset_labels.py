"""Labels of WebDataset shards: from `.cls` files, or `label` or `cls` in `.json` files."""

from typing import Any

_JSON_KEYS = ("label", "cls", "class")


def with_labels(dataset: Any) -> Any:
    """Give a WebDataset a `label` column where its `cls` or `json` column holds one; images stay undecoded.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset` of the webdataset builder.
    """
    features = dataset.features or {}
    if "label" in features:
        return dataset
    if "cls" in features:
        return dataset.rename_column("cls", "label")
    described = features.get("json")
    key = next((key for key in _JSON_KEYS if isinstance(described, dict) and key in described), None)
    if key is None:
        return dataset
    import datasets

    if isinstance(dataset, datasets.Dataset):
        labels = [entry[key] for entry in dataset.select_columns(["json"])["json"]]
        return dataset.add_column("label", labels, feature=described[key])
    from .columns import find_image_column

    column = find_image_column(dataset)
    image = features[column]
    undecoded = dataset.cast_column(column, datasets.Image(decode=False))
    labelled = undecoded.map(
        _JsonLabel(key), features=datasets.Features({**undecoded.features, "label": described[key]})
    )
    return labelled.cast_column(column, image)


class _JsonLabel:
    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, example: dict) -> dict:
        return {"label": example["json"][self.key]}
