"""Held-out images are prepared, and their kNN is computed, as `ladder evaluate knn` does it."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

from helpers.stream_data import encoded
from ladder_training import TwoViewTransform
from ladder_training.evaluation import knn
from ladder_training.evaluation.backbone import load_image_settings
from ladder_training.evaluation.image_transforms import CenterTransform
from ladder_training.trainer.held_out import held_out_images
from ladder_training.trainer.monitor import HeldOutImages, look
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture
def model(tiny_backbone) -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    return LadderSiameseForPreTraining(
        LadderSiameseConfig(backbone_config=tiny_backbone, projection_hidden_size=16, projection_size=8)
    ).train()


def pictures(count: int = 12) -> Dataset:
    """Noise of several shapes with a weak tint per class, and a frame that tells a centre crop from the whole image."""
    rng = np.random.default_rng(0)
    images = []
    for index in range(count):
        height, width = 40 + 8 * (index % 3), 56 - 5 * (index % 4)
        image = rng.integers(0, 180, (height, width, 3), dtype=np.uint8)
        image[..., index % 2] += 25
        image[:4], image[-4:] = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        images.append(image)
    return Dataset.from_dict(
        {"image": images, "label": [index % 2 for index in range(count)]},
        features=Features({"image": Image(), "label": ClassLabel(names=["red", "green"])}),
    )


def held_out(dataset: Dataset, size: int) -> HeldOutImages:
    _, images = held_out_images(dataset, dataset, TwoViewTransform(size=size), None, None, maximum=100)
    return images


@pytest.mark.parametrize("size", [32, 127, 128, 160])
def test_pixels_are_those_of_evaluation(model, size):
    """Below 128 pixels the whole image, from there on the middle 87.5 %: one rule for both."""
    dataset = pictures(6)
    transform = CenterTransform(load_image_settings(model, size))
    expected = torch.stack([transform(np.asarray(row["image"])) for row in dataset])
    found = held_out(dataset, size).batch(0, 6, torch.device("cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_label_column_of_any_name_is_that_of_the_images_held_out_of_training(streaming, caplog):
    rows = [{"bytes": encoded(24, number, "PNG"), "path": None} for number in range(200)]
    data = Dataset.from_dict({"image": rows, "kind": ["ab"[n % 2] for n in range(200)]}).cast_column("image", Image())
    data = data.to_iterable_dataset(num_shards=2) if streaming else data
    _, images = held_out_images(data, None, TwoViewTransform(size=16), None, "kind", 10)
    assert images.labels.tolist() and set(images.labels.tolist()) <= {0, 1}
    assert "measures no kNN" not in caplog.text


@pytest.mark.parametrize(("size", "k", "temperature"), [(32, 3, 0.1), (32, 7, 0.02), (128, 5, 0.07)])
def test_the_log_shows_the_accuracy_that_evaluate_knn_finds(model, size, k, temperature):
    """Leave-one-out over n images is the average of n evaluations, each fitted on all images but the one it scores."""
    dataset = pictures()
    logged = look(model, held_out(dataset, size), neighbours=k, temperature=temperature).knn
    scores = {name: [] for name in [*STAGES, "all"]}
    for index in range(len(dataset)):
        others = dataset.select([other for other in range(len(dataset)) if other != index])
        settings = {"k": k, "temperature": temperature, "image_size": size}
        result = knn(model, others, test_dataset=dataset.select([index]), device="cpu", **settings)
        for name, metrics in result.metrics.items():
            scores[name].append(metrics["accuracy"])
    assert logged == pytest.approx({name: np.mean(values) for name, values in scores.items()}, abs=1e-6)
    assert len(set(logged.values())) > 1  # accuracies that differ between stages cannot agree by chance
    assert 0 < min(logged.values()) < 1


@pytest.mark.parametrize(
    ("labels", "column", "expected", "said"),
    [
        ([3, 0, 3, 1], None, [3, 0, 3, 1], None),
        (["dog", "cat", "dog", "ant"], "label", [2, 1, 2, 0], None),
        ([3, None, 3, 1], None, None, "1 of 4 held-out images have no label"),
        ([3, -1, 3, 1], None, None, "1 of 4 held-out images have no label"),
        ([[3, 1], [0], [3], [1]], "label", None, "its values are list"),
        ([0.5, 1.0, 2.0, 3.0], "label", None, "its values are float"),
        ([3, 0, 3, 1], "lable", None, "no label column 'lable' among image, label; did you mean label?"),
    ],
)
def test_labels_that_cannot_be_used_are_said_and_do_not_stop_a_training(labels, column, expected, said, caplog) -> None:
    rows = [{"bytes": encoded(24, number, "PNG"), "path": None} for number in range(4)]
    held_out = Dataset.from_dict({"image": rows, "label": labels}).cast_column("image", Image())
    _, images = held_out_images(held_out, held_out, TwoViewTransform(size=16), None, column, 10)
    assert images.pixels.shape == (4, 16, 16, 3)
    assert (None if images.labels is None else images.labels.tolist()) == expected
    messages = [record.getMessage() for record in caplog.records if "measures no kNN" in record.getMessage()]
    assert len(messages) == (said is not None)
    assert said is None or said in messages[0]
