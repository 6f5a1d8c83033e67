"""Classes are matched by name: the same figures whatever numbers each split gives to its classes."""

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from helpers.models import tiny_native_backbone
from ladder_training.errors import UserError
from ladder_training.evaluation import knn, linear, semi_supervised
from ladder_training.evaluation.classes import ClassIndex

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (190, 190, 190)}
INTEGER, TEXT = Value("int64"), Value("string")


def named(*names: str) -> ClassLabel:
    return ClassLabel(names=list(names))


def test_equal_names_get_equal_numbers() -> None:
    index = ClassIndex(named("cat", "dog", "owl"), named("owl", "cat"), "train", "test")
    assert index.names == ["cat", "dog", "owl"]
    assert index.fit_numbers([0, 1, 2]) == [0, 1, 2]
    assert index.score_numbers([0, 1, 0]) == [2, 0, 2]
    assert index.compare([0, 1, 2], [0, 2]) == [
        "splits train and test number their classes differently: by name",
        "1 class is only in split train: dog",
    ]


def test_a_class_that_only_the_scored_split_has_is_refused_by_name() -> None:
    index = ClassIndex(named("cat", "dog"), named("ant", "cat", "dog", "owl"), "train", "test")
    assert index.score_numbers([1, 2]) == [0, 1]
    with pytest.raises(UserError, match="class ant exists only in split test, not in the one that is fitted on"):
        index.score_numbers([0, 1])
    with pytest.raises(UserError, match=r"classes that exist only in split test, .*: ant, owl$"):
        index.score_numbers([0, 3, 0])
    with pytest.raises(UserError, match=r"only in split test, .*: dog"):
        index.compare([0], [0, 1])


def test_integers_without_names_are_compared_as_they_are() -> None:
    index = ClassIndex(INTEGER, INTEGER, "train", "test")
    index.learn([7, 3, 7, 11])
    assert index.names == ["3", "7", "11"]
    assert index.fit_numbers([7, 3, 11]) == [1, 0, 2]
    assert index.score_numbers([11, 3]) == [2, 0]
    assert index.compare([0, 1, 2], [0, 1, 2]) == []


@pytest.mark.parametrize(
    ("fit", "score", "learned", "scored", "expected", "said"),
    [
        (TEXT, named("dog", "cat"), ["cat", "dog"], [0, 1], [1, 0], False),
        (named("dog", "cat"), TEXT, [0, 1], ["cat", "dog"], [1, 0], False),
        (named("dog", "cat"), INTEGER, [0, 1], [1, 0], [1, 0], True),
        (INTEGER, named("dog", "cat"), [0, 1], [1, 0], [1, 0], True),
        # Names that are numbers themselves: 10 is the class "10", not the eleventh class.
        (named("1", "10", "2"), INTEGER, [0, 1, 2], [10, 2], [1, 2], False),
        (INTEGER, named("1", "10", "2"), [1, 2, 10], [1, 2], [2, 1], False),
        (TEXT, TEXT, ["b", "a"], ["b", "a"], [1, 0], False),
        (INTEGER, TEXT, [2, 10], ["10", "2"], [1, 0], False),
    ],
)
def test_where_one_split_has_names(fit, score, learned, scored, expected, said) -> None:
    index = ClassIndex(fit, score, "train", "test")
    index.learn(learned)
    assert index.score_numbers(scored) == expected
    assert any("numbers without names" in note for note in index.notes) == said


def test_missing_labels_are_refused() -> None:
    index = ClassIndex(named("cat", "dog"), named("cat", "dog"), "train", "test")
    for missing in (None, -1):
        with pytest.raises(UserError, match="split test has images without a label"):
            index.score_numbers([0, missing])


def colours(names: list[str], count: int, seed: int, names_of_labels: list[str]) -> Dataset:
    """Noisy pictures of one colour each, `count` per name; labels count in the order of `names_of_labels`."""
    generator = np.random.default_rng(seed)
    images, labels = [], []
    for name in names:
        for _ in range(count):
            colour = np.clip(np.array(COLOURS[name]) + generator.normal(0, 60, 3), 0, 255)
            noise = generator.integers(-30, 31, (32, 32, 3))
            images.append(np.clip(colour + noise, 0, 255).astype(np.uint8))
            labels.append(names_of_labels.index(name))
    features = Features({"image": Image(), "label": ClassLabel(names=names_of_labels)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.fixture(scope="module")
def backbone():
    return tiny_native_backbone()


NAMES = list(COLOURS)


@pytest.mark.parametrize("streaming", [False, True])
def test_knn_is_the_same_if_the_scored_split_orders_its_names_otherwise(backbone, streaming) -> None:
    train = colours(NAMES, 20, 0, NAMES)
    same, permuted = (colours(NAMES, 10, 1, names) for names in (NAMES, NAMES[::-1]))
    if streaming:
        train, same, permuted = (part.to_iterable_dataset() for part in (train, same, permuted))
    expected = knn(backbone, train, test_dataset=same, image_size=32)
    found = knn(backbone, train, test_dataset=permuted, image_size=32)
    assert found.metrics == expected.metrics
    assert 0.5 < found.metrics["all"]["accuracy"] < 1
    assert expected.notes == []
    assert any("by name" in note for note in found.notes)


def folder_of(root: Path, parts: dict[str, list[str]]) -> Path:
    """An image folder with these classes in each split."""
    for split, names in parts.items():
        pictures = colours(names, 12, len(split), names)
        for number, row in enumerate(pictures):
            path = root / split / names[row["label"]] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Picture.fromarray(np.asarray(row["image"])).save(path)
    return root


def test_a_folder_of_test_images_without_one_class_is_scored_by_name(backbone, own_cache, tmp_path: Path) -> None:
    whole = folder_of(tmp_path / "whole", {"train": NAMES, "test": NAMES})
    lacking = folder_of(tmp_path / "lacking", {"train": NAMES, "test": NAMES[1:]})
    everything = knn(backbone, str(whole), image_size=32)
    result = knn(backbone, str(lacking), image_size=32, output=tmp_path / "out")
    assert everything.metrics["all"]["accuracy"] > 0.6
    assert abs(result.metrics["all"]["accuracy"] - everything.metrics["all"]["accuracy"]) < 0.15
    assert any("1 class is only in split train: red" in note for note in result.notes)
    assert "1 class is only in split train: red" in result.table()
    assert "1 class is only in split train: red" in result.path.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="class white exists only in split test"):
        knn(backbone, str(folder_of(tmp_path / "more", {"train": NAMES[:3], "test": NAMES})), image_size=32)


def test_the_other_tasks_match_by_name_too(backbone) -> None:
    train = colours(NAMES, 20, 0, NAMES)
    same, permuted = (colours(NAMES, 10, 1, names) for names in (NAMES, NAMES[::-1]))
    for task, settings in (
        (linear, {"epochs": 8, "learning_rates": 1.0}),
        (linear, {"epochs": 8, "learning_rates": 1.0, "augment": True, "train_batch_size": 16}),
        (semi_supervised, {"label_fraction": 0.5, "learning_rates": 0.1, "epochs": 1, "min_steps": 5}),
    ):
        expected, found = (
            task(backbone, train, test_dataset=test, image_size=32, device="cpu", **settings)
            for test in (same, permuted)
        )
        assert found.metrics == expected.metrics
        assert any("by name" in note for note in found.notes)
    assert expected.metrics["fine_tuned"]["accuracy"] > 0.4  # chance is 0.25


def test_numbers_that_are_no_whole_numbers_are_no_classes(backbone) -> None:
    pictures = colours(NAMES, 3, 0, NAMES)
    floats = pictures.cast_column("label", Value("float32"))
    for train, test in ((floats, pictures), (pictures, floats)):
        with pytest.raises(UserError, match="holds no class per image"):
            knn(backbone, train, test_dataset=test, image_size=32, label_column="label")
