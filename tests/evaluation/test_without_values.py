"""Looks, evaluation and export on a GPU that is not there: no tensor of the CPU meets one of the GPU."""

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers.fake_gpu import TRAINABLE, AnsweredReads, fake_gpu, needs_fake_cuda, without_values
from helpers.models import tiny_native_backbone, tiny_resnet
from helpers.processes import run_apart
from helpers.training import make_model
from ladder_training.evaluation.backbone import StageFeatures
from ladder_training.evaluation.features import pooled_features
from ladder_training.evaluation.image_classification import linear_probe
from ladder_training.evaluation.image_classification.fine_tuning import Classifier
from ladder_training.evaluation.image_classification.linear_heads import ParallelHeads, accuracy_per_rate
from ladder_training.evaluation.options import LinearOptions, SegmentationOptions
from ladder_training.evaluation.semantic_segmentation.model import SegmentationNetwork, segmentation_loss
from ladder_training.evaluation.tuning import TunedBackbone, fine_tune, parameter_groups
from ladder_training.models.feature_rows import feature_sets
from ladder_training.models.neighbour_votes import knn_votes
from ladder_training.trainer.monitor import HeldOutImages, look
from modeling_ladder.conversion import native_backbone

FEATURES = {"stage1": torch.randn(40, 4), "stage2": torch.randn(40, 6)}
LABELS = torch.arange(40) % 3
ALL_STAGES = ["stage1", "stage2", "stage3", "stage4"]


def features_of(device: str) -> StageFeatures:
    """A backbone in eval mode; call it inside `fake_gpu`."""
    return without_values(StageFeatures(tiny_native_backbone(out_features=ALL_STAGES), None), device)


@needs_fake_cuda
@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_look_at_held_out_images(labels) -> None:
    pixels = np.zeros((40, 64, 64, 3), np.uint8)
    images = HeldOutImages(pixels, labels, (0.5,) * 3, (0.2,) * 3)

    def work() -> tuple[set[str], set[str], dict[str, int]]:
        model = make_model(tiny_resnet(), level_losses=["both", "local", "global", "both"])
        with fake_gpu(), AnsweredReads() as answered:
            found = look(without_values(model), images, batch_size=16)
        return set(found.std), set(found.knn), answered.reads

    std, knn, reads = run_apart(work)
    assert len(std) == 6
    assert knn == (set() if labels is None else {*ALL_STAGES, "all"})
    assert reads["cuda"] == 2 * 6 + len(knn)  # a spread and a rank of each level, an accuracy of each stage


@needs_fake_cuda
def test_features_of_a_batch_come_back_to_the_processor() -> None:
    def work() -> list[tuple[str, torch.dtype]]:
        with fake_gpu():
            found = pooled_features(features_of("cuda"), torch.zeros(2, 3, 64, 64), "cuda")
            return [(values.device.type, values.dtype) for values in found.values()]

    assert run_apart(work) == [("cpu", torch.float32)] * 4


@needs_fake_cuda
@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_knn_compares_on_the_gpu_and_reads_nothing(where, leave_one_out) -> None:
    """Features lie in main memory, or, if they fit, on the GPU."""

    def work() -> tuple[str, tuple[int, ...]]:
        with fake_gpu():
            fit = {name: values.to(where) for name, values in FEATURES.items()}
            rows = feature_sets(fit, normalise=True)["all"]
            score = None if leave_one_out else feature_sets(FEATURES, normalise=True)["all"]
            votes = knn_votes(rows, LABELS, score, k=5, num_classes=3, device="cuda")
            return votes.device.type, tuple(votes.shape)

    assert run_apart(work) == ("cuda", (40, 3))


@pytest.mark.parametrize("where", ["cpu", TRAINABLE])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_linear_probe_trains_and_scores(monkeypatch, where, standardize) -> None:
    held, kept = torch.arange(8), torch.arange(8, 40)
    monkeypatch.setattr(linear_probe, "stratified_split", lambda *_, **__: (held, kept))
    monkeypatch.setattr(ParallelHeads, "to", lambda heads, device: without_values(heads, str(device)))

    def work() -> dict[str, str]:
        with fake_gpu(), AnsweredReads():
            rows = {name: torch.empty_like(values, device=where) for name, values in FEATURES.items()}
            fit = feature_sets(rows, normalise=False)
            options = LinearOptions(epochs=2, learning_rates=[0.1, 1.0], train_batch_size=16, standardize=standardize)
            probe = linear_probe.fit_probe(fit, LABELS, 3, options, 0, TRAINABLE)
            assert {value.device.type for value in probe.heads.parameters()} == {TRAINABLE}
            scores = probe.scores(feature_sets(FEATURES, normalise=False), TRAINABLE)
            return {name: values.device.type for name, values in scores.items()}

    assert run_apart(work) == dict.fromkeys(["stage1", "stage2", "all"], "cpu")


def test_heads_of_the_augmented_probe_train_without_a_read() -> None:
    def work() -> set[str]:
        with fake_gpu():
            body = features_of(TRAINABLE)
            widths = dict(zip(body.stages, body.channels, strict=True))
            heads = ParallelHeads(widths, 5, dict.fromkeys(widths, (0.1, 1.0)), batch_norm=True)
            heads = without_values(heads, TRAINABLE).train()
            optimizer = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=0.9, nesterov=True)
            labels = torch.zeros(4, dtype=torch.int64, device=TRAINABLE)
            for _ in range(2):
                maps = body(torch.empty(4, 3, 64, 64, device=TRAINABLE))
                scores = heads({name: values.mean(dim=(2, 3)).detach() for name, values in maps.items()})
                heads.loss(scores, labels).backward()
                optimizer.step()
                optimizer.zero_grad()
            return {accuracy_per_rate(part, labels).device.type for part in scores.values()}

    assert run_apart(work) == {TRAINABLE}


def accelerator() -> Any:
    """What `fine_tune` uses of accelerate, on one device."""
    return SimpleNamespace(
        device=torch.device(TRAINABLE),
        num_processes=1,
        autocast=contextlib.nullcontext,
        backward=lambda loss: loss.backward(),
        clip_grad_norm_=torch.nn.utils.clip_grad_norm_,
    )


def network_of(kind: str) -> tuple[nn.Module, Any]:
    """A network of a task, and its loss on a batch that comes from a loader in main memory."""
    features = StageFeatures(tiny_native_backbone(out_features=ALL_STAGES), None)
    if kind == "semi-supervised":
        return Classifier(TunedBackbone(features, "train"), 3), lambda net, batch: nn.functional.cross_entropy(
            net(batch[0].to(TRAINABLE)), batch[1].to(TRAINABLE)[:, 0, 0]
        )
    options = SegmentationOptions(head=kind, head_channels=8, batch_norm="train", crop_size=64)
    return SegmentationNetwork(features, 3, options), lambda net, batch: segmentation_loss(
        net(batch[0].to(TRAINABLE)), batch[1].to(TRAINABLE), 255
    )


@pytest.mark.parametrize("kind", ["semi-supervised", "fcn", "upernet"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_fine_tuning_and_segmentation_train(kind, clip) -> None:
    """Each step reads its loss twice, to tell and to check it, and nothing else."""

    def work() -> tuple[list[float], dict[str, int], set[str]]:
        network, loss_of = network_of(kind)
        with fake_gpu(), AnsweredReads() as answered:
            without_values(network, TRAINABLE)
            batch = (torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64))
            groups = parameter_groups(network, 1e-4)
            optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
            losses = fine_tune(
                network, [batch] * 3, loss_of, optimizer, lambda step: 1.0, accelerator(), max_gradient_norm=clip
            )
            kinds = {value.grad.device.type for value in network.parameters() if value.grad is not None}
        return losses, answered.reads, kinds

    losses, reads, kinds = run_apart(work, seconds=120)
    assert losses == [1.0] * 3
    assert reads == {TRAINABLE: 6}
    assert kinds == {TRAINABLE}


def test_the_backbone_that_is_written_is_a_copy_in_main_memory(monkeypatch) -> None:
    monkeypatch.setattr(nn.Module, "to_empty", lambda module, device: without_values(module, device))

    def work() -> set[str]:
        model = make_model(tiny_resnet())
        with fake_gpu():
            native = native_backbone(without_values(model))
            return {value.device.type for value in native.state_dict().values()}

    assert run_apart(work) == {"cpu"}


def test_a_mix_of_devices_is_noticed_in_a_backward_too() -> None:
    def work() -> None:
        with fake_gpu():
            layer = without_values(nn.Linear(3, 2), TRAINABLE)
            with pytest.raises(RuntimeError, match="device"):
                nn.functional.cross_entropy(layer(torch.empty(2, 3, device=TRAINABLE)), torch.zeros(2).long())

    run_apart(work)
