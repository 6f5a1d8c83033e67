"""With one global level on the last stage the model is BYOL, bit for bit; levels of weight 0 change nothing."""

import pytest
import torch

from helpers.byol_reference import byol_loss, clone_weights
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
from modeling_ladder.matching import match_locations, sample_points

HEADS = {"projection_hidden_size": 32, "projection_size": 16}


def moved_target(model: LadderSiameseForPreTraining) -> LadderSiameseForPreTraining:
    """A target that differs from the online network, as in the middle of training."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def byol(tiny_backbone) -> LadderSiameseForPreTraining:
    torch.manual_seed(0)
    config = LadderSiameseConfig.byol(backbone_config=tiny_backbone, **HEADS)
    return moved_target(LadderSiameseForPreTraining(config)).train()


def test_loss_gradients_and_statistics_equal_the_reference_bit_for_bit(byol, view_pairs) -> None:
    views = view_pairs(batch=6)["pixel_values"]
    weights = clone_weights(byol)
    expected = byol_loss(weights, views)
    expected.backward()
    output = byol(views)
    output.loss.backward()
    assert torch.equal(output.loss, expected)
    for name, parameter in byol.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None
        else:
            assert torch.equal(parameter.grad, weights[name].grad), name
    # Batch norm saw each view once, in both networks: the running statistics prove order and mode.
    for name, buffer in byol.named_buffers():
        if "running" in name:
            assert torch.equal(buffer, weights[name]), name


@pytest.mark.parametrize("mutant", ["averaged", "uncrossed", "concatenated", "target in eval mode"])
def test_mistakes_of_others_are_told_apart(byol, view_pairs, mutant) -> None:
    views = view_pairs(batch=6)["pixel_values"]
    wrong = byol_loss(clone_weights(byol), views, mutant)
    right = byol_loss(clone_weights(byol), views)
    assert torch.equal(byol(views).loss, right)
    if mutant == "uncrossed":
        # The sum over both directions of a symmetric batch could hide it; on random views it cannot.
        assert not torch.equal(right, wrong)
    assert (right - wrong).abs() > 1e-4


@pytest.mark.parametrize("kinds", [["local", "local", "global", "global"], ["both", "both", "both", "global"]])
@pytest.mark.parametrize("matching", ["location", "feature"])
def test_levels_of_weight_zero_change_no_bit(tiny_backbone, byol, view_pairs, kinds, matching) -> None:
    config = LadderSiameseConfig(
        backbone_config=tiny_backbone,
        level_losses=kinds,
        level_weights=[0, 0, 0, 1],
        local_matching=matching,
        local_grid_size=3,
        **HEADS,
    )
    ladder = LadderSiameseForPreTraining(config).train()
    ladder.load_state_dict(byol.state_dict(), strict=False)
    batch = view_pairs(batch=6)
    output, expected = ladder(**batch), byol(**batch)
    assert torch.equal(output.loss, expected.loss)
    assert set(output.level_losses) == {f"{stage}.{kind}" for stage, kind, _ in config.levels}
    assert all(loss > 0 for loss in output.level_losses.values())
    output.loss.backward()
    expected.loss.backward()
    reference = dict(byol.named_parameters())
    for name, parameter in ladder.named_parameters():
        if name in reference and reference[name].grad is not None:
            assert torch.equal(parameter.grad, reference[name].grad), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_global_pooling_is_the_mean_to_the_bit_and_its_gradient_keeps_the_layout(byol, layout, kind) -> None:
    maps = torch.randn(3, 5, 6, 7).to(kind).contiguous(memory_format=layout).requires_grad_()
    layouts = []
    stage = maps * 1
    stage.register_hook(lambda gradient: layouts.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    pooled, expected = byol._level_vectors("stage4", "global", [stage], None, {})[0], maps.mean(dim=(2, 3))
    weight = torch.randn(3, 5).to(kind)
    gradient, wanted = (torch.autograd.grad((found * weight).sum(), maps)[0] for found in (pooled, expected))

    assert torch.equal(pooled, expected) and torch.equal(gradient, wanted)
    assert layouts == [True]


def ladder_reference(model: LadderSiameseForPreTraining, batch: dict, mutant: str | None = None) -> float:
    """Total loss written point by point: maps from the model's networks, everything after them by hand."""
    config, total = model.config, 0.0
    boxes, flips = batch["view_boxes"], batch["view_flips"]
    if mutant == "boxes ignored":
        boxes = torch.tensor([0.0, 0, 1, 1]).expand_as(boxes)
    if mutant == "flips ignored":
        flips = torch.zeros_like(flips)
    match = match_locations(boxes, flips, config.local_grid_size)
    views = batch["pixel_values"].unbind(1)
    online = [model.feature_maps(view) for view in views]
    target = [model._stage_maps(model.target.backbone, view) for view in views]
    for stage, kind, weight in config.levels:
        q, z = [], []
        for view in range(2):
            if kind == "global":
                h, t = (maps[view][stage].mean(dim=(2, 3)) for maps in (online, target))
            else:
                h, t = (sample_points(maps[view][stage], match.points[view]) for maps in (online, target))
            q.append(model.predictors[stage][kind](model.projectors[stage][kind](h)))
            z.append(model.target.projectors[stage][kind](t))
        distances = []
        for one, other in ((q[0], z[1]), (q[1], z[0])):
            cos = torch.nn.functional.cosine_similarity(one, other, dim=-1)
            per_image = (2 - 2 * cos).reshape(len(cos), -1).mean(dim=1)
            distances.append(per_image[match.valid].mean() if kind == "local" else per_image.mean())
        total += weight * float(distances[0] + distances[1])
    return total


@pytest.mark.parametrize("mutant", [None, "boxes ignored", "flips ignored"])
def test_ladder_loss_against_a_point_by_point_reference(tiny_backbone, view_pairs, mutant) -> None:
    torch.manual_seed(1)
    config = LadderSiameseConfig(
        backbone_config=tiny_backbone, level_weights=[4, 4, 1, 0.5], local_grid_size=3, **HEADS
    )
    model = moved_target(LadderSiameseForPreTraining(config)).train()
    batch = view_pairs(batch=6, size=64)
    batch["view_boxes"][2] = torch.tensor([[0.0, 0, 0.3, 0.3], [0.6, 0.6, 1, 1]])  # a pair without overlap
    with torch.no_grad():
        loss = model(**batch).loss.item()
        expected = ladder_reference(model, batch, mutant)
    if mutant is None:
        assert loss == pytest.approx(expected, rel=1e-5)
    else:
        assert abs(loss - expected) > 1e-3


def test_swapping_the_views_leaves_the_loss_in_eval_mode(tiny_backbone, view_pairs) -> None:
    config = LadderSiameseConfig(backbone_config=tiny_backbone, local_grid_size=3, **HEADS)
    model = moved_target(LadderSiameseForPreTraining(config)).eval()
    batch = view_pairs()
    swapped = {name: value.flip(1) for name, value in batch.items()}
    torch.testing.assert_close(model(**batch).loss, model(**swapped).loss, rtol=1e-5, atol=1e-6)


def test_stop_gradient_target_is_simsiam(tiny_backbone, view_pairs) -> None:
    """Loss by hand from one forward of each view; the target has no parameters and updating it does nothing."""
    config = LadderSiameseConfig.byol(backbone_config=tiny_backbone, target="stop_gradient", **HEADS)
    model = LadderSiameseForPreTraining(config).train()
    assert model.target is None
    assert not any(name.startswith("target") for name in model.state_dict())
    views = view_pairs(batch=6)["pixel_values"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forwards: list[int] = []
    hook = model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: forwards.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    output = model(views)
    hook.remove()
    output.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.load_state_dict(before)
    z = [
        model.projectors["stage4"]["global"](model.feature_maps(v)["stage4"].mean(dim=(2, 3))) for v in views.unbind(1)
    ]
    q = [model.predictors["stage4"]["global"](vectors) for vectors in z]
    cos = torch.nn.functional.cosine_similarity
    expected = (4 - 2 * cos(q[0], z[1].detach()) - 2 * cos(q[1], z[0].detach())).mean()
    torch.testing.assert_close(output.loss, expected)
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert forwards == [6, 6]  # each view once: no extra forward for the target
    model.load_state_dict(before)
    model.update_target(0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
