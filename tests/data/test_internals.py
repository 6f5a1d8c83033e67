"""The private attributes of `datasets` that are used, and what happens in a version that lacks them."""

import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets.distributed import split_dataset_by_node

from ladder_training.data import internals
from ladder_training.data.held_out import image_names
from ladder_training.data.origin import SourceInfo
from ladder_training.errors import UserError

ROOT = Path(__file__).parents[2]
PRIVATE = re.compile(
    r"""\._(ex_iterable|distributed|indices|info|fingerprint|data|format_type)\b(?!\()|\b_resolve_features\b"""
)


class Without:
    """A data set as a version of `datasets` would give it that has no such attributes."""

    def __init__(self, dataset, *missing):
        self._wrapped, self._missing = dataset, missing

    def __getattr__(self, name):
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __len__(self):
        return len(self._wrapped)

    def __iter__(self):
        return iter(self._wrapped)


@pytest.fixture(scope="module")
def photos():
    images = [{"bytes": bytes([number]), "path": f"photos/{number:02d}.jpg"} for number in range(12)]
    features = datasets.Features({"image": datasets.Image(decode=False), "n": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, "n": list(range(12))}, features=features)


def test_only_one_file_uses_private_attributes_of_datasets():
    found = {}
    for folder in ("training", "modeling_ladder", "model_cards"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            # An object's own attributes, self._indices, are no one else's.
            lines = [line for line in text.splitlines() if PRIVATE.search(line.replace("self._", "self."))]
            if lines and "datasets" in text:
                found[path.relative_to(ROOT).as_posix()] = lines
    assert set(found) == {"training/data/internals.py"}, found


@pytest.mark.parametrize("missing", [(), ("_indices",)])
def test_paths_of_a_selection_are_its_own_in_its_order(photos, missing):
    some = Without(photos.select([7, 2, 9]), *missing)
    assert internals.image_paths(some, "image") == ["photos/07.jpg", "photos/02.jpg", "photos/09.jpg"]
    assert image_names(some, "image") == ["07.jpg", "02.jpg", "09.jpg"]


def test_rows_of_a_selection_and_of_a_version_that_does_not_tell(photos):
    assert internals.table_rows(photos) is None
    assert internals.table_rows(photos.select([7, 2, 9])).to_pylist() == [7, 2, 9]
    assert internals.table_rows(Without(photos.select([7, 2, 9]), "_indices")) is None


def test_an_info_that_is_not_kept_is_an_error_not_a_lost_path_rule(photos):
    class Elsewhere:
        info = datasets.DatasetInfo()

    with pytest.raises(UserError, match="does not keep what is known of a data set"):
        internals.set_info(Elsewhere(), SourceInfo())
    kept = photos.select(range(3))
    internals.set_info(kept, SourceInfo(damaged=(("a.tar", "cut off"),)))
    assert kept.select([1]).info.damaged == (("a.tar", "cut off"),)


@pytest.mark.parametrize("missing", [(), ("_indices",), ("_fingerprint",), ("_indices", "_fingerprint")])
def test_a_column_is_replaced_and_the_rest_stays(photos, missing):
    doubled = pa.chunked_array([pa.array(np.arange(12) * 2)])
    made = internals.with_column(Without(photos, *missing), "n", doubled, "doubled")
    assert made["n"][:] == [2 * number for number in range(12)] and made.column_names == ["image", "n"]
    assert made[3]["image"] == photos[3]["image"]
    before = "[0-9a-f]{32}" if "_fingerprint" in missing else internals.fingerprint_of(photos)
    assert re.fullmatch(f"{before}-doubled", internals.fingerprint_of(made))


def test_a_column_of_a_selection_is_replaced_or_refused_never_shifted(photos):
    doubled = pa.chunked_array([pa.array(np.arange(12) * 2)])
    some = photos.select([7, 2, 9])
    assert internals.with_column(some, "n", doubled, "doubled")["n"][:] == [14, 4, 18]
    with pytest.raises(UserError, match="cannot replace 'n' in a part of a data set"):
        internals.with_column(Without(some, "_indices"), "n", doubled, "doubled")


def test_a_shuffle_is_taken_back(photos):
    stream = photos.to_iterable_dataset(num_shards=3)
    shuffled = split_dataset_by_node(stream.shuffle(seed=1, buffer_size=4), 0, 2)
    assert [row["n"] for row in internals.unshuffled(shuffled)] == list(range(12))
    assert internals.unshuffled(stream) is stream


@pytest.mark.parametrize("missing", [(), ("_resolve_features",)])
def test_a_stream_that_declares_no_features_has_those_of_its_first_example(photos, missing):
    rows = photos.select(range(3)).to_list()
    plain = datasets.IterableDataset.from_generator(lambda: iter(rows))
    assert plain.features is None
    found = internals.with_features(Without(plain, *missing))
    assert {"image", "n"} <= found.features.keys() and [row["n"] for row in found] == [0, 1, 2]
    assert internals.with_features(photos) is photos


@pytest.mark.parametrize("missing", ["_ex_iterable", "_distributed"])
def test_a_version_that_does_not_tell_of_shuffling_is_said_in_one_line(photos, missing, caplog):
    stream = Without(photos.to_iterable_dataset(num_shards=3), missing)
    with caplog.at_level(logging.WARNING):
        assert internals.unshuffled(stream) is stream
    assert len(caplog.messages) == 1 and "give it without .shuffle()" in caplog.text and "\n" not in caplog.messages[0]
