"""Which columns of a data set are written, which are left out, and which would be wrong for smaller images."""

from dataclasses import dataclass
from typing import Any

from ..data.columns import KEY, URL
from ..errors import UserError, did_you_mean, near_names

_PLACES = {"bbox", "bboxes", "box", "boxes", "keypoints", "polygon", "polygons", "segmentation"}
_SIZES = {"width", "height"}
# What JSON, in which WebDataset keeps columns, gives back as it was.
_JSON_TYPES = ("int", "uint", "float", "string", "large_string", "bool")


@dataclass(frozen=True)
class Columns:
    """The columns of a data set.

    Attributes:
        image: The column of the images.
        features: Feature of each column that is written, the image's too, in the source's order.
        left_out: Column that is not written -> the reason.
    """

    image: str
    features: dict[str, Any]
    left_out: dict[str, str]


def choose_columns(features: dict[str, Any], image: str, drop: list[str], kind: str) -> Columns:
    """Divide the columns of a data set.

    Args:
        features: Its features.
        image: The column of the images.
        drop: Columns that the user leaves out.
        kind: "parquet" or "webdataset".

    Raises:
        UserError: `drop` names no column, or the images; or a column that is not dropped holds places in the image.
    """
    import datasets

    for name in drop:
        if name not in features:
            raise UserError(f"drop_columns: no column {name!r}{did_you_mean(near_names(name, features))}")
    if image in drop:
        raise UserError(f"drop_columns: {image!r} holds the images (another column: --image_column)")
    written, left_out = {}, {}
    for name, feature in features.items():
        if name in (KEY, URL):
            continue
        if name == image:
            written[name] = datasets.Image()
        elif name in drop:
            left_out[name] = "as asked"
        elif name.lower() in _SIZES:
            left_out[name] = "it is the size of the image in the source"
        elif isinstance(feature, datasets.Image):
            raise _no_longer_fits(name, "a second image, which may be a label map")
        elif _names(name, feature) & _PLACES:
            raise _no_longer_fits(name, "places in the image")
        elif not _is_plain(feature, kind):
            left_out[name] = f"{kind} shards keep numbers, text, classes, and lists of them only"
        else:
            written[name] = feature
    return Columns(image, written, left_out)


def _no_longer_fits(name: str, what: str) -> UserError:
    return UserError(
        f"column {name!r} holds {what}; it would not fit the smaller images: prepare is for pretraining and "
        f"classification (--drop_columns {name} writes the images without it)"
    )


def _names(name: str, feature: Any) -> set[str]:
    """The names of a column and of everything inside it, in small letters."""
    return {name.lower()}.union(*(_names(key, inner) for key, inner in _inner(feature)))


def _inner(feature: Any) -> list[tuple[str, Any]]:
    if isinstance(feature, dict):
        return list(feature.items())
    if isinstance(feature, list):
        return [("", feature[0])]
    return [("", feature.feature)] if hasattr(feature, "feature") else []


def _is_plain(feature: Any, kind: str) -> bool:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return True
    if isinstance(feature, datasets.Value):
        if kind == "webdataset":
            return feature.dtype.startswith(_JSON_TYPES)
        return "binary" not in feature.dtype
    inner = _inner(feature)
    return bool(inner) and all(_is_plain(entry, kind) for _, entry in inner)
