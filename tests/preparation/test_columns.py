"""Which columns of a data set are written."""

import pytest
from datasets import ClassLabel, Image, List, Value

from ladder_training.errors import UserError
from ladder_training.preparation.columns import choose_columns

FEATURES = {
    "label": ClassLabel(names=["a", "b"]),
    "image": Image(),
    "caption": Value("string"),
    "tags": List(Value("int64")),
    "about": {"year": Value("int32"), "names": List(Value("string"))},
    "taken": Value("timestamp[s]"),
    "raw": Value("binary"),
    "width": Value("int32"),
    "__key__": Value("string"),
}


def test_plain_columns_are_kept_in_order_and_the_others_are_named() -> None:
    columns = choose_columns(FEATURES, "image", ["tags"], "parquet")
    assert list(columns.features) == ["label", "image", "caption", "about", "taken"]
    assert columns.features["label"].names == ["a", "b"]
    assert set(columns.left_out) == {"tags", "raw", "width"}
    assert "size of the image" in columns.left_out["width"]
    assert set(choose_columns(FEATURES, "image", [], "webdataset").left_out) == {"raw", "width", "taken"}


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("objects", {"bbox": List(List(Value("float32"), length=4)), "category": List(Value("int64"))}),
        ("objects", List({"bbox": List(Value("float32"))})),
        ("boxes", List(List(Value("float32")))),
        ("mask", Image()),
    ],
)
def test_boxes_and_label_maps_are_refused_unless_left_out(name: str, feature: object) -> None:
    features = {"image": Image(), name: feature}
    with pytest.raises(UserError, match=f"'{name}'.*--drop_columns {name}"):
        choose_columns(features, "image", [], "parquet")
    assert list(choose_columns(features, "image", [name], "parquet").features) == ["image"]


def test_a_column_that_does_not_exist_cannot_be_left_out() -> None:
    with pytest.raises(UserError, match="no column 'captions'; did you mean caption"):
        choose_columns(FEATURES, "image", ["captions"], "parquet")
    with pytest.raises(UserError, match="'image' holds the images"):
        choose_columns(FEATURES, "image", ["image"], "parquet")
