"""kNN against brute force, and the features and data it stands on."""

import json
import math

import numpy as np
import pytest
import torch

from helpers.models import tiny_native_backbone
from ladder_training.errors import UserError
from ladder_training.evaluation import knn, knn_accuracy
from ladder_training.models import neighbour_votes
from ladder_training.models.neighbour_votes import knn_votes


def brute_force_votes(train, labels, test, k, temperature, classes):
    """The definition, one image at a time, in float64."""
    train, test = (x.numpy().astype(np.float64) for x in (train, test))
    votes = np.zeros((len(test), classes))
    for row, query in enumerate(test):
        cosine = [query @ other / (np.linalg.norm(query) * np.linalg.norm(other)) for other in train]
        for index in sorted(range(len(train)), key=lambda i: -cosine[i])[:k]:
            votes[row, labels[index]] += math.exp(cosine[index] / temperature)
    return votes


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (7, 0.02), (60, 1.0)])
def test_votes_equal_brute_force(k, temperature):
    generator = torch.Generator().manual_seed(k)
    train, test = (torch.randn(n, 8, generator=generator) for n in (60, 31))
    labels = torch.randint(5, (60,), generator=generator)
    expected = brute_force_votes(train, labels, test, k, temperature, 5)
    votes = knn_votes(train, labels, test, k=k, temperature=temperature, num_classes=5).numpy()
    np.testing.assert_allclose(
        votes / votes.sum(1, keepdims=True), expected / expected.sum(1, keepdims=True), rtol=2e-4, atol=1e-6
    )
    truth = torch.randint(5, (31,), generator=generator)
    expected_accuracy = (expected.argmax(1) == truth.numpy()).mean()
    assert knn_accuracy(train, labels, test, truth, k, temperature) == pytest.approx(expected_accuracy)


def test_votes_equal_sklearn():
    from sklearn.neighbors import KNeighborsClassifier

    generator = torch.Generator().manual_seed(3)
    train, test = (torch.randn(n, 16, generator=generator) for n in (300, 100))
    labels = torch.randint(10, (300,), generator=generator)
    reference = KNeighborsClassifier(
        n_neighbors=20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(train.numpy(), labels.numpy())
    votes = knn_votes(train, labels, test, num_classes=10)
    np.testing.assert_array_equal(votes.argmax(1).numpy(), reference.predict(test.numpy()))


def test_blocks_do_not_change_the_votes(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 4, generator=generator) for n in (257, 41))
    labels = torch.randint(3, (257,), generator=generator)
    whole = knn_votes(train, labels, test, k=9)
    monkeypatch.setattr(neighbour_votes, "BLOCK", 64)
    monkeypatch.setattr(neighbour_votes, "SCORED_BLOCK", 7)
    torch.testing.assert_close(knn_votes(train, labels, test, k=9), whole)


def test_a_low_temperature_does_not_overflow():
    features = torch.eye(3)
    votes = knn_votes(features, torch.arange(3), features, k=3, temperature=1e-3)
    assert torch.isfinite(votes).all()
    assert votes.argmax(1).tolist() == [0, 1, 2]


def test_the_length_of_features_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    train, test = (torch.randn(n, 4, generator=generator) for n in (50, 20))
    labels = torch.randint(3, (50,), generator=generator)
    scale = torch.rand(50, 1, generator=generator) * 100 + 0.01
    torch.testing.assert_close(knn_votes(train * scale, labels, test * 7), knn_votes(train, labels, test))


def test_wrong_settings_are_named():
    features, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(UserError, match="greater than 0"):
        knn_votes(features, labels, features, k=0)
    with pytest.raises(UserError, match="training features"):
        knn_votes(features[:0], labels[:0], features)


@pytest.fixture(scope="module")
def backbone():
    return tiny_native_backbone()


def coloured_squares(count, seed, classes=3):
    """Images of one colour per class, with noise: every stage of any network tells them apart."""
    from datasets import ClassLabel, Dataset, Features, Image

    generator = np.random.default_rng(seed)
    labels = [index % classes for index in range(count)]
    images = []
    for label in labels:
        image = generator.integers(0, 40, (40, 48, 3), dtype=np.uint8)
        image[..., label] += 200
        images.append(image)
    names = ["red", "green", "blue"][:classes]
    return Dataset.from_dict(
        {"image": images, "label": labels}, features=Features({"image": Image(), "label": ClassLabel(names=names)})
    )


def test_task_scores_every_stage_and_writes_its_file(backbone, tmp_path):
    from datasets import DatasetDict

    data = DatasetDict(train=coloured_squares(30, 0), test=coloured_squares(15, 1), validation=coloured_squares(6, 2))
    was_training, stages = backbone.training, list(backbone.out_features)
    result = knn(backbone, data, output=tmp_path, image_size=32)
    assert (backbone.training, backbone.out_features) == (was_training, stages)
    assert list(result.metrics) == ["stage1", "stage2", "stage3", "stage4", "all"]
    assert all(row["accuracy"] == 1.0 for row in result.metrics.values())
    saved = json.loads((tmp_path / "evaluation" / f"knn-{result.dataset}.json").read_text())
    assert (saved["task"], saved["split"], saved["fit_split"]) == ("knn", "test", "train")
    assert saved["count"] == {"fit": 30, "score": 15}
    assert saved["metrics"]["stage2"]["accuracy"] == 1.0
    assert saved["classes"] == ["red", "green", "blue"]
    assert {"protocol", "seed", "seconds", "versions", "date", "model"} <= saved.keys()
    assert saved["protocol"]["k"] == 20
    assert "stage3" in result.table() and "mean" in result.table()
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == [f"knn-{result.dataset}.json"]


def test_k_is_clamped_with_a_note(backbone):
    result = knn(backbone, coloured_squares(9, 0), test_dataset=coloured_squares(6, 1), image_size=32)
    assert result.protocol["k"] == 9
    assert any("k is 9" in note for note in result.notes)


def test_features_are_the_pooled_stages_in_eval_mode(backbone):
    from ladder_training.evaluation.backbone import ImageSettings, load_backbone
    from ladder_training.evaluation.features import extract_features
    from ladder_training.evaluation.image_transforms import CenterTransform

    data = coloured_squares(5, 0)
    transform = CenterTransform(ImageSettings(size=32))
    found = extract_features(
        load_backbone(backbone.train()),
        data,
        transform,
        image_column="image",
        label_column="label",
        split="train",
        batch_size=2,
    )
    pixels = torch.stack([transform(np.asarray(row["image"])) for row in data])
    with torch.no_grad():
        hidden = backbone.eval()(pixels, output_hidden_states=True).hidden_states[1:]
    for name, feature_map in zip(["stage1", "stage2", "stage3", "stage4"], hidden, strict=True):
        torch.testing.assert_close(found.features[name], feature_map.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert found.labels == data["label"][:]


def test_streams_give_the_same_figures(backbone):
    train, test = coloured_squares(30, 0), coloured_squares(15, 1)
    stored = knn(backbone, train, test_dataset=test, image_size=32)
    streamed = knn(backbone, train.to_iterable_dataset(), test_dataset=test.to_iterable_dataset(), image_size=32)
    assert streamed.metrics == stored.metrics


def without_labels():
    return coloured_squares(6, 0).remove_columns("label")


def only_in_test():
    data = coloured_squares(9, 0)
    return data.filter(lambda row: row["label"] < 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"dataset": without_labels(), "test_dataset": without_labels()}, "image"),
        (lambda: {"dataset": coloured_squares(3, 0)}, "too few .* test_dataset"),
        (lambda: {"dataset": only_in_test(), "test_dataset": coloured_squares(6, 1)}, "only in split .*blue"),
        (lambda: {"dataset": coloured_squares(6, 0, 1), "test_dataset": coloured_squares(6, 0, 1)}, "one class"),
        (lambda: {"dataset": {"train": coloured_squares(3, 0)}}, "has one split, train"),
        (lambda: {"dataset": coloured_squares(6, 0), "neighbours": 3}, "unknown setting 'neighbours'"),
        (lambda: {"dataset": coloured_squares(6, 0), "temprature": 3}, "did you mean temperature"),
        (lambda: {"dataset": coloured_squares(6, 0), "k": "many"}, "k must be a whole number"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(backbone, tmp_path, make, message):
    with pytest.raises(UserError, match=message) as error:
        knn(backbone, output=tmp_path, image_size=32, **make())
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        knn(tmp_path, coloured_squares(6, 0), test_dataset=coloured_squares(6, 1))
