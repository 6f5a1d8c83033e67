"""The linear probe against torch's own optimizer, its choice of the learning rate, and its two protocols."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Image

from helpers.models import tiny_native_backbone
from ladder_training.errors import UserError
from ladder_training.evaluation import linear
from ladder_training.evaluation.image_classification.augmented_rows import is_held_out
from ladder_training.evaluation.image_classification.linear_heads import (
    ParallelHeads,
    best_rates,
    make_optimizer,
    set_cosine,
)
from ladder_training.evaluation.image_classification.linear_probe import fit_probe
from ladder_training.evaluation.image_classification.task import stratified_split
from ladder_training.evaluation.options import LinearOptions, read_recipe


def blobs(count, seed, classes=3, width=6, spread=0.5):
    """Features around one centre per class; the centres do not depend on the seed."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99)) * 3
    labels = torch.arange(count) % classes
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return centres[labels] + spread * noise, labels


def test_heads_of_several_rates_equal_separate_training():
    features, labels = blobs(64, 0)
    rates = [0.03, 0.5, 2.0]
    heads = ParallelHeads({"stage1": 6}, 3, {"stage1": rates})
    optimizer = make_optimizer(heads)
    for step in range(12):
        set_cosine(optimizer, step, 12)
        heads.loss(heads({"stage1": features}), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    for column, rate in enumerate(rates):
        alone = torch.nn.Linear(6, 3)
        torch.nn.init.zeros_(alone.weight)
        torch.nn.init.zeros_(alone.bias)
        reference = torch.optim.SGD(alone.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=12)
        for _ in range(12):
            F.cross_entropy(alone(features), labels).backward()
            reference.step()
            reference.zero_grad()
            schedule.step()
        found = heads({"stage1": features})["stage1"][:, column]
        torch.testing.assert_close(found, alone(features), rtol=1e-3, atol=1e-4)


def test_separable_features_are_learned_and_the_seed_decides():
    features, labels = blobs(120, 0)
    test, truth = blobs(60, 1)
    options = LinearOptions(epochs=20)
    probe = fit_probe({"stage1": features}, labels, 3, options, seed=0)
    assert (probe.scores({"stage1": test})["stage1"].argmax(1) == truth).all()
    again = fit_probe({"stage1": features}, labels, 3, options, seed=0)
    other = fit_probe({"stage1": features}, labels, 3, LinearOptions(epochs=20, train_batch_size=32), seed=1)
    assert torch.equal(probe.scores({"stage1": test})["stage1"], again.scores({"stage1": test})["stage1"])
    assert not torch.equal(probe.scores({"stage1": test})["stage1"], other.scores({"stage1": test})["stage1"])


def test_the_probe_approaches_the_best_linear_classifier():
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(300, 0, spread=3.0)
    test, truth = blobs(600, 1, spread=3.0)
    reference = LogisticRegression(C=1e4, max_iter=5000).fit(features.numpy(), labels.numpy())
    probe = fit_probe({"a": features}, labels, 3, LinearOptions(epochs=60), seed=0)
    found = (probe.scores({"a": test})["a"].argmax(1) == truth).float().mean().item()
    assert found == pytest.approx(reference.score(test.numpy(), truth.numpy()), abs=0.01)


def test_standardisation_makes_the_result_free_of_scale():
    features, labels = blobs(200, 0, spread=2.0)
    stretched = (features + 5) * torch.tensor([1e-3, 1.0, 1e3, 5.0, 1.0, 0.1])
    options = LinearOptions(epochs=10)
    plain = fit_probe({"a": features}, labels, 3, options, seed=0)
    scaled = fit_probe({"a": stretched}, labels, 3, options, seed=0)
    torch.testing.assert_close(
        scaled.scores({"a": stretched})["a"], plain.scores({"a": features})["a"], rtol=5e-2, atol=5e-2
    )


def test_constant_features_are_harmless():
    features, labels = blobs(60, 0)
    features = torch.cat([features, torch.full((60, 2), 3.7)], dim=1)
    probe = fit_probe({"a": features}, labels, 3, LinearOptions(epochs=5), seed=0)
    assert torch.isfinite(probe.scores({"a": features})["a"]).all()


def test_best_rate_ignores_diverged_classifiers_and_prefers_the_small_one():
    chosen, notes = best_rates({"a": torch.tensor([0.5, 0.7, 0.7, torch.nan])}, (0.1, 0.3, 1.0, 3.0))
    assert chosen == {"a": 1}
    assert notes == []
    assert best_rates({"a": torch.tensor([0.9, 0.5, 0.5])}, (0.1, 0.3, 1.0))[1]


@pytest.mark.parametrize(("fraction", "at_least"), [(0.01, 1), (0.1, 1), (0.1, 0), (0.9, 0)])
def test_stratified_split_keeps_the_share_of_each_class(fraction, at_least):
    labels = torch.tensor([0] * 200 + [1] * 50 + [2] * 3)
    drawn, left = stratified_split(labels, fraction, 5, at_least=at_least)
    assert sorted([*drawn.tolist(), *left.tolist()]) == list(range(253))
    for label, size in ((0, 200), (1, 50), (2, 3)):
        count = int((labels[drawn] == label).sum())
        expected = max(at_least, round(fraction * size))
        assert count == (expected if at_least else min(expected, size - 1))
    assert torch.equal(drawn, stratified_split(labels, fraction, 5, at_least=at_least)[0])
    assert not torch.equal(drawn, stratified_split(labels, fraction, 6, at_least=at_least)[0])


@pytest.fixture(scope="module")
def backbone():
    return tiny_native_backbone()


def tinted(count, seed, classes=8):
    """Noisy images whose mean colour tells the class, with overlap, so that no classifier is perfect."""
    from datasets import ClassLabel, Dataset, Features, Image

    palette = np.random.default_rng(7).uniform(60, 190, (classes, 3))
    generator = np.random.default_rng(seed)
    labels = [index % classes for index in range(count)]
    images = []
    for label in labels:
        colour = palette[label] + generator.normal(0, 25, 3)
        images.append((colour + generator.normal(0, 40, (40, 40, 3))).clip(0, 255).astype(np.uint8))
    features = Features({"image": Image(), "label": ClassLabel(num_classes=classes)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_the_test_labels_have_no_part_in_the_choice(backbone):
    """Mutated test labels change the score and nothing else."""
    train, test = tinted(240, 0), tinted(80, 1)
    settings = {"image_size": 32, "epochs": 8}
    first = linear(backbone, train, test_dataset=test, **settings)
    shifted = test.map(lambda row: {"label": (row["label"] + 1) % 8})
    second = linear(backbone, train, test_dataset=shifted, **settings)
    assert first.protocol == second.protocol
    assert len(first.protocol["holdout_accuracy"]["stage4"]) == 6
    assert first.metrics["all"]["accuracy"] > 0.5 > second.metrics["all"]["accuracy"]
    assert first.metrics["all"]["accuracy_top5"] > first.metrics["all"]["accuracy"]


def test_label_fraction_and_written_file(backbone, tmp_path):
    result = linear(
        backbone,
        tinted(160, 0),
        test_dataset=tinted(40, 1),
        output=tmp_path,
        image_size=32,
        epochs=5,
        label_fraction=0.1,
    )
    assert result.count == {"fit": 16, "score": 40}
    assert result.task == "linear_10pct"
    assert json.loads(result.path.read_text())["protocol"]["label_fraction"] == 0.1


@pytest.mark.parametrize("streaming", [False, True])
def test_augmented_protocol(backbone, streaming):
    train, test = tinted(240, 0), tinted(80, 1)
    if streaming:
        train, test = train.to_iterable_dataset(num_shards=2), test.to_iterable_dataset()
    settings = {"image_size": 32, "augment": True, "max_steps": 30, "train_batch_size": 64, "shuffle_buffer": 100}
    result = linear(backbone, train, test_dataset=test, device="cpu", **settings)
    assert list(result.metrics) == ["stage1", "stage2", "stage3", "stage4", "all"]
    assert result.metrics["stage1"]["accuracy"] > 0.4
    assert result.count["score"] == 80
    again = linear(backbone, train, test_dataset=test, device="cpu", **settings)
    assert again.metrics == result.metrics
    assert again.protocol == result.protocol
    # Thirty batches of 64 are nine passes; each image that is not held out counts once.
    raw = tinted(240, 0).cast_column("image", Image(decode=False))
    held = sum(is_held_out(row["image"], result.protocol["holdout_fraction"], 0) for row in raw)
    assert result.count["fit"] == 240 - held and 0 < held < 100
    assert result.protocol["images_with_repetition"] == 30 * 64
    one_step = linear(backbone, train, test_dataset=test, device="cpu", **{**settings, "max_steps": 1})
    assert one_step.count["fit"] == 64


def test_hold_out_of_a_stream_follows_the_image_alone():
    images = [{"bytes": bytes([index % 256, index // 256]), "path": None} for index in range(4000)]
    held = [is_held_out(image, 0.1, 0) for image in images]
    assert held == [is_held_out(image, 0.1, 0) for image in images]
    assert sum(held) == pytest.approx(400, abs=80)
    assert held != [is_held_out(image, 0.1, 1) for image in images]


def test_user_errors(backbone):
    train, test = tinted(40, 0), tinted(16, 1)
    with pytest.raises(UserError, match="max_steps"):
        unknown = train.to_iterable_dataset()
        linear(backbone, unknown, test_dataset=test, augment=True, image_size=32)
    with pytest.raises(UserError, match="label_column 'kind' does not exist; the columns are image, label"):
        linear(backbone, train, test_dataset=test, label_column="kind")
    with pytest.raises(UserError, match="holdout_fraction"):
        linear(backbone, train, test_dataset=test, holdout_fraction=0)


def test_the_imagenet_recipe_is_valid():
    assert LinearOptions(**read_recipe("linear", "imagenet")).augment
