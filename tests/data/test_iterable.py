"""The length of a data set, whether it is map-style or a stream."""

import datasets
import pytest

from ladder_training.data.iterable import as_stream, declare_length, length_of


def rows(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"number": list(range(count))})


def test_the_length_of_a_map_style_data_set_and_of_the_stream_made_from_it() -> None:
    assert length_of([1, 2, 3]) == 3
    assert length_of(rows(7)) == 7
    stream = as_stream(rows(7), 3)
    assert (stream.num_shards, length_of(stream)) == (3, 7)
    assert [row["number"] for row in stream] == list(range(7))


def test_a_stream_has_at_least_one_example_per_shard() -> None:
    assert as_stream(rows(2), 64).num_shards == 2


@pytest.mark.parametrize("declared", [None, 0])
def test_a_stream_that_declares_no_length_has_none(declared: int | None) -> None:
    stream = rows(7).to_iterable_dataset()
    if declared is not None:  # `datasets` writes 0 where it does not know the number
        declare_length(stream, declared)
    assert length_of(stream) is None
    assert length_of(iter([1])) is None
