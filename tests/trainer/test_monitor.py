"""Metrics of the held-out images: what they name, and what they depend on."""

import numpy as np
import pytest
import torch

from ladder_training.trainer.monitor import HeldOutImages, look
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining


@pytest.fixture
def model(tiny_backbone) -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    fields = {"projection_hidden_size": 32, "projection_size": 16, "local_grid_size": 3}
    fields["level_losses"] = ["local", "local", "global", "global"]
    return LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=tiny_backbone, **fields)).train()


def images(count: int = 40, labelled: bool = True) -> HeldOutImages:
    rng = np.random.default_rng(0)
    labels = torch.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 32, 32, 3)) + 90 * labels.numpy()[:, None, None, None] * np.array([1, 0, 0])
    return HeldOutImages(pixels.clip(0, 255).astype(np.uint8), labels if labelled else None, (0.5,) * 3, (0.25,) * 3)


def test_a_look_names_every_stage_and_level_and_changes_nothing(model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    metrics = look(model, images(), batch_size=16)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(metrics.knn) == ["stage1", "stage2", "stage3", "stage4", "all"]
    assert list(metrics.std) == list(metrics.rank) == ["stage1.local", "stage2.local", "stage3.global", "stage4.global"]
    assert metrics.knn["stage1"] > 0.9  # three colours
    assert set(metrics.log_entries()) >= {"knn/stage1", "std/stage4.global", "rank/stage1.local"}


def test_the_online_network_is_watched_and_not_the_target(model) -> None:
    before = look(model, images()).log_entries()
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert look(model, images()).log_entries() == before
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    assert look(model, images()).log_entries() != before


def test_metrics_do_not_depend_on_the_batch_size(model) -> None:
    one, other = look(model, images(), batch_size=7), look(model, images(), batch_size=40)
    assert one.log_entries() == pytest.approx(other.log_entries(), rel=1e-4)


def test_without_labels_there_are_only_collapse_metrics(model) -> None:
    metrics = look(model, images(labelled=False))
    assert not metrics.knn
    assert len(metrics.std) == 4


def test_a_collapsed_level_shows_in_its_own_metrics_only(model) -> None:
    model.projectors["stage2"]["local"].output.weight.data[:] = model.projectors["stage2"]["local"].output.weight.data[
        :1
    ]
    head = model.projectors["stage2"]["local"]
    head.normalization.weight.data.fill_(1e-4)
    head.normalization.bias.data.fill_(1.0)
    metrics = look(model, images())
    assert metrics.std["stage2.local"] < 0.01
    assert min(value for level, value in metrics.std.items() if level != "stage2.local") > 0.1


def test_pixels_are_normalised_channel_by_channel() -> None:
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, 51
    held_out = HeldOutImages(pixels, None, (0.5, 0.1, 0.2), (0.25, 0.5, 0.1))
    batch = held_out.batch(0, 1, torch.device("cpu"))
    assert batch.shape == (1, 3, 2, 2)
    assert batch[0, :, 0, 0].tolist() == pytest.approx([2.0, 0.2, -2.0])
