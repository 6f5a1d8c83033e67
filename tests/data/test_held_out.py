"""Labels of the images that are held out of a mixture: matched by name, or left out with a warning."""

import logging

import datasets
import numpy as np
import pytest

from helpers.pictures import encode
from ladder_training.data.held_out import split_monitoring
from ladder_training.data.mixing import mix_streams


def part(feature: object, values: list[object], seed: int) -> datasets.Dataset:
    """One picture for each label value."""
    generator = np.random.default_rng(seed)
    pictures = [encode(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in values]
    rows = {"image": [{"bytes": picture, "path": None} for picture in pictures], "label": values}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), "label": feature}))


def held_out_of(*parts: datasets.Dataset) -> datasets.Dataset:
    """Every second image of each part."""
    return split_monitoring(mix_streams(list(parts)), fraction=0.5)[1]


def kinds(count: int, seed: int) -> datasets.Dataset:
    """Pictures with a text of "ab" in the column "kind", which no name of a label column gives away."""
    return part(datasets.Value("string"), ["ab"[n % 2] for n in range(count)], seed).rename_column("label", "kind")


@pytest.mark.parametrize("shape", ["map", "stream", "mixture", "mixed streams"])
def test_a_column_of_labels_that_is_named_is_held_out_too(shape: str) -> None:
    data, more = kinds(40, 0), part(datasets.Value("string"), ["c"] * 8, 1).rename_column("label", "kind")
    if "stream" in shape:
        data, more = data.to_iterable_dataset(num_shards=4), more.to_iterable_dataset(num_shards=2)
    whole = mix_streams([data, more]) if "mix" in shape else data
    _, found = split_monitoring(whole, fraction=0.5, label_column="kind")
    expected = {"a", "b", "c"} if "mix" in shape else {"a", "b"}
    assert set(found.column_names) == {"image", "kind"} and set(found["kind"]) == expected


def test_names_in_another_order_mean_the_same_classes() -> None:
    first = part(datasets.ClassLabel(names=["cat", "dog"]), [0] * 20, 0)  # cats only
    second = part(datasets.ClassLabel(names=["dog", "owl", "cat"]), [0] * 20, 1)  # dogs only
    found = held_out_of(first, second)
    names = found.features["label"].names
    assert names == ["cat", "dog", "owl"]
    assert [names[label] for label in found["label"]] == ["cat"] * 10 + ["dog"] * 10


def test_integers_without_names_are_taken_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    integers = datasets.Value("int64")
    found = held_out_of(part(integers, [7] * 20, 0), part(integers, [3] * 20, 1))
    assert found["label"][:] == [7] * 10 + [3] * 10
    assert caplog.messages == []


def test_names_and_bare_integers_cannot_be_matched_which_is_said(caplog: pytest.LogCaptureFixture) -> None:
    named = part(datasets.ClassLabel(names=["cat", "dog"]), [0] * 20, 0)
    with caplog.at_level(logging.WARNING):
        found = held_out_of(named, part(datasets.Value("int64"), [1] * 20, 1))
    assert found.column_names == ["image"]
    assert "not all its data sets have labels alike" in caplog.text
