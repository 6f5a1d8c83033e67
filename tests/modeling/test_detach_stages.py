"""Stage-wise learning, the ablation in which no gradient leaves its own stage."""

import pytest
import torch
from torch import nn
from transformers import ConvNextConfig, SwinConfig

from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
from modeling_ladder.modeling_ladder_pretraining import find_stages


def stage_gradients(model: LadderSiameseForPreTraining, level: str, batch: dict[str, torch.Tensor]) -> list[float]:
    """Norm of the gradient of one level's loss in the stem and in each stage."""
    model.config.level_names, model.config.level_losses, model.config.level_weights = [level], ["global"], [1.0]
    model.zero_grad()
    model(**batch).loss.backward()
    parts = [model.backbone.embedder, *model.backbone.encoder.stages]
    return [sum(p.grad.norm().item() for p in part.parameters() if p.grad is not None) for part in parts]


def build(backbone, **fields) -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    fields = {"level_losses": ["global"] * 4, "projection_hidden_size": 16, "projection_size": 8, **fields}
    return LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone, **fields)).train()


def test_the_gradient_of_a_level_stays_in_its_own_stage(tiny_backbone, view_pairs) -> None:
    stem, *stages = stage_gradients(build(tiny_backbone, detach_stages=True), "stage3", view_pairs())
    assert stages[2] > 0
    assert (stem, stages[0], stages[1], stages[3]) == (0, 0, 0, 0)
    # The stem belongs to the first stage.
    stem, *stages = stage_gradients(build(tiny_backbone, detach_stages=True), "stage1", view_pairs())
    assert min(stem, stages[0]) > 0
    assert stages[1:] == [0, 0, 0]
    assert min(stage_gradients(build(tiny_backbone), "stage4", view_pairs())) > 0


def test_the_losses_are_the_same_and_it_survives_saving(tiny_backbone, view_pairs, tmp_path) -> None:
    plain, detached = build(tiny_backbone), build(tiny_backbone, detach_stages=True)
    assert torch.equal(plain(**view_pairs()).loss, detached(**view_pairs()).loss)
    detached.save_pretrained(tmp_path)
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path).train()
    assert stage_gradients(loaded, "stage4", view_pairs())[:-1] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "backbone",
    [
        ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]),
        SwinConfig(
            image_size=32, patch_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2
        ),
    ],
)
def test_other_backbones_have_findable_stages(backbone, view_pairs) -> None:
    model = build(backbone, detach_stages=True)
    model.config.level_names, model.config.level_losses, model.config.level_weights = ["stage4"], ["global"], [1.0]
    model(**view_pairs()).loss.backward()
    first, *_, last = find_stages(model.backbone, 4)
    assert all(p.grad is None or not p.grad.any() for p in first.parameters())
    assert any(p.grad is not None and p.grad.any() for p in last.parameters())


def test_a_backbone_without_such_a_list_is_named() -> None:
    with pytest.raises(ValueError, match="the stages of Sequential"):
        find_stages(nn.Sequential(nn.Linear(1, 1)), 4)
