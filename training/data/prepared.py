"""The features of WebDataset shards that `ladder prepare` has written; the format itself knows no classes.

The shards hold `jpg` and `json`; beside them `features.json` says which columns those are.
"""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_json
from .columns import KEY, URL, without_decoding

FEATURES_FILE = "features.json"
IMAGE_MEMBER, JSON_MEMBER = "jpg", "json"


def write_features(folder: Path, features: Any, image: str) -> None:
    """Write `features.json`.

    Args:
        folder: Where the shards are.
        features: The columns, the image's included.
        image: The column that `jpg` holds.
    """
    import datasets

    write_json(folder / FEATURES_FILE, {"image": image, "features": datasets.Features(features).to_dict()})


def written_features(folder: Path) -> Any:
    """The features by which the webdataset builder reads prepared shards, or None if none are written there.

    Without them it infers types from the first five examples, and a column that is empty there has none.

    Args:
        folder: Where the shards are.

    Raises:
        UserError: `features.json` cannot be read.
    """
    import datasets

    description = _read(folder)
    if description is None:
        return None
    image, features = description
    others = {name: feature for name, feature in features.items() if name != image}
    members = {IMAGE_MEMBER: datasets.Image(), **({JSON_MEMBER: others} if others else {})}
    return datasets.Features({**members, KEY: datasets.Value("string"), URL: datasets.Value("string")})


def with_written_columns(dataset: Any, folder: Path) -> Any:
    """Give a data set of prepared WebDataset shards the columns of its source back; images are not decoded or copied.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset` that was loaded with `written_features`.
        folder: Where the shards are.

    Returns:
        The data set with the columns of the source and WebDataset's own two; unchanged without `features.json`.

    Raises:
        UserError: `features.json` cannot be read.
    """
    import datasets

    description = _read(folder)
    if description is None:
        return dataset
    image, features = description
    others = [name for name in features if name != image]
    if isinstance(dataset, datasets.Dataset):
        parts = [dataset.select_columns([IMAGE_MEMBER]).rename_column(IMAGE_MEMBER, image)]
        if others:
            members = dataset.select_columns([JSON_MEMBER]).flatten(max_depth=2)
            parts.append(members.rename_columns({f"{JSON_MEMBER}.{name}": name for name in others}))
        together = datasets.concatenate_datasets([*parts, dataset.select_columns([KEY, URL])], axis=1)
        return together.select_columns([*features, KEY, URL])
    keys = {name: dataset.features[name] for name in (KEY, URL)}
    columns = datasets.Features({**features, image: datasets.Image(decode=False), **keys})
    changed = without_decoding(dataset).map(
        _Columns(image, others), features=columns, remove_columns=[IMAGE_MEMBER, *([JSON_MEMBER] if others else [])]
    )
    return changed.cast_column(image, datasets.Image())


def _read(folder: Path) -> tuple[str, Any] | None:
    """(column of the images, features), as `write_features` has written them."""
    import datasets

    file = folder / FEATURES_FILE
    if not file.is_file():
        return None
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        return str(described["image"]), datasets.Features.from_dict(described["features"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read ({error!r}): prepare the data set again") from error


class _Columns:
    """The columns of one example, from its members."""

    def __init__(self, image: str, others: list[str]) -> None:
        self.image, self.others = image, others

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        values = example.get(JSON_MEMBER) or {}
        return {self.image: example[IMAGE_MEMBER], **{name: values.get(name) for name in self.others}}
