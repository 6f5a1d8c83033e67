"""A damaged shard of a stream, read by every command: skipped, counted and named, and never more than that."""

import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from helpers.damaged_streams import DAMAGED, DAMAGES, EACH, FEATURES, NO_LABEL, SECRET, SHARDS
from helpers.models import tiny_native_backbone
from ladder_training.data.prepared import write_features
from ladder_training.data.sources import load_image_stream
from ladder_training.errors import TooManyBadImages, UserError
from ladder_training.evaluation import knn, linear
from ladder_training.evaluation.embedding.options import EmbedOptions
from ladder_training.evaluation.embedding.parts import PLAN
from ladder_training.evaluation.embedding.task import embed
from ladder_training.inspection.data import inspect_data
from ladder_training.loading.loader import ViewLoader
from ladder_training.preparation.command import prepare
from ladder_training.preparation.options import PrepareOptions
from ladder_training.trainer.held_out import held_out_images
from ladder_training.views.two_views import TwoViewTransform

pytestmark = pytest.mark.usefixtures("own_cache")
IMAGES = SHARDS * EACH


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return tiny_native_backbone(out_features=["stage3", "stage4"])


def pretrain(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    loader = ViewLoader(
        load_image_stream(folder, streaming=True),
        TwoViewTransform(size=16),
        batch_size=5,
        shuffle_buffer=5,
        max_bad_fraction=0.2,
        bad_images_file=output / "bad.jsonl",
    )
    list(itertools.islice(loader, 2 * IMAGES // 5))
    lines = (output / "bad.jsonl").read_text() if (output / "bad.jsonl").exists() else ""
    return len(lines.splitlines()), lines


def look(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    stream = load_image_stream(folder, streaming=True)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ladder_training.trainer.held_out")
    logger.addHandler(handler)
    try:
        _, images = held_out_images(stream, stream, TwoViewTransform(size=16), None, None, 1000)
    finally:
        logger.removeHandler(handler)
    assert images is not None
    (line,) = [line for line in said if "cannot be read" in line] or [""]
    return int(line.split()[1]) if line else 0, line


def evaluated(task: Callable[..., Any], **settings: Any) -> Callable[[Path, Path, Any], tuple[int, str]]:
    def evaluate(folder: Path, output: Path, model: Any) -> tuple[int, str]:
        result = task(model, str(folder), streaming=True, image_size=32, **settings)
        notes = " ".join(result.notes)
        count = next((note.split()[0] for note in result.notes if "could not be read" in note), "0")
        return int(count), notes

    return evaluate


def embedded(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    file = output / "features.parquet"
    options = EmbedOptions(model="m", dataset=str(folder), output=str(file), streaming=True, image_size=32)
    found = embed(options, model=model)
    assert found is not None
    kept = json.loads(pq.read_schema(file).metadata[PLAN.encode()])["unreadable"]
    assert kept == found.bad
    return len(found.bad), str(found.bad)


def prepared(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    counts = prepare(PrepareOptions(dataset=str(folder), output=str(output / "shards"), streaming=True, workers=1))
    lines = output / "shards" / "bad_images.jsonl"
    return counts["train"]["unreadable"], lines.read_text() if lines.exists() else ""


def inspected(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    (report,) = inspect_data(
        [str(folder)], output=output, streaming=True, transform=TwoViewTransform(size=16), limit=0, seconds=0.1
    )["datasets"]
    damaged = report["damaged_shards"]
    return report["unreadable"] + len(damaged), str([*damaged, *report["unreadable_examples"]])


def augmented(folder: Path, output: Path, model: Any) -> tuple[int, str]:
    if not list(folder.glob("*.parquet")):  # names of the classes, which this reader needs
        write_features(folder, FEATURES, "image")
    task = evaluated(linear, augment=True, max_steps=6, train_batch_size=16, num_workers=0)
    return task(folder, output, model)


READERS = {
    "pretrain": pretrain,
    "look": look,
    "inspect": inspected,
    "knn": evaluated(knn),
    "linear": evaluated(linear, epochs=1),
    "augmented linear": augmented,
    "embed": embedded,
    "prepare": prepared,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_damage_is_skipped_counted_and_named(tmp_path: Path, model: Any, reader: str, damage: str) -> None:
    if (reader, damage) == ("augmented linear", "text in cls"):
        pytest.skip("cls files have no names of classes, which this reader needs")
    make, expected = DAMAGES[damage]
    make(tmp_path / "set")
    (tmp_path / "out").mkdir()
    if expected > 1 and reader in ("knn", "linear", "augmented linear"):  # more than the 1 % that evaluation allows
        with pytest.raises(UserError, match=r"split train: \d+ of \d+ images cannot be read"):
            READERS[reader](tmp_path / "set", tmp_path / "out", model)
        return
    if expected > 1 and reader == "embed":
        with pytest.raises(TooManyBadImages, match=r"more than the 0\.01 that max_bad_fraction"):
            READERS[reader](tmp_path / "set", tmp_path / "out", model)
        return
    count, words = READERS[reader](tmp_path / "set", tmp_path / "out", model)
    assert count == expected
    assert SECRET not in words
    assert f"train-{DAMAGED:03d}." in words or f"train-{DAMAGED}-" in words or expected != 1, words


@pytest.mark.parametrize("damage", NO_LABEL)
@pytest.mark.parametrize("reader", READERS)
def test_images_without_a_label_are_images_all_the_same(tmp_path: Path, model: Any, reader: str, damage: str) -> None:
    NO_LABEL[damage](tmp_path / "set")
    (tmp_path / "out").mkdir()
    if reader in ("knn", "linear", "augmented linear"):
        with pytest.raises(UserError, match="split train has images without a label"):
            READERS[reader](tmp_path / "set", tmp_path / "out", model)
        return
    count, _ = READERS[reader](tmp_path / "set", tmp_path / "out", model)
    assert count == 0
