"""Region losses: the same boxes of the source image in both views, averaged as RoIAlign does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from helpers.models import tiny_resnet
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining
from modeling_ladder.configuration_ladder import loss_kinds
from modeling_ladder.losses import symmetric_loss
from modeling_ladder.matching import REGION_PARTS, match_locations, region_weights, weigh_cells

COUNT = sum(parts**2 for parts in REGION_PARTS)
box = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.4, 1), st.floats(0.4, 1)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1.0), min(b[1] + b[3], 1.0))
)


def coordinate_view(view_box: tuple[float, ...], flip: bool, cells: int) -> torch.Tensor:
    """A feature map whose cells hold the source coordinates x, y of their centres."""
    x0, y0, x1, y1 = view_box
    centres = (torch.arange(cells) + 0.5) / cells
    x = (x0 + centres * (x1 - x0)).flip(0) if flip else x0 + centres * (x1 - x0)
    y = y0 + centres * (y1 - y0)
    return torch.stack([x.expand(cells, cells), y.unsqueeze(1).expand(cells, cells)]).unsqueeze(0)


@settings(max_examples=100, deadline=None)
@given(box, box, st.booleans(), st.booleans(), st.integers(8, 24))
def test_a_region_is_the_same_box_of_the_image_in_both_views(first, second, flip1, flip2, cells) -> None:
    match = match_locations(torch.tensor([[first, second]]), torch.tensor([[flip1, flip2]]), 4)
    if not match.valid:
        return
    low = torch.tensor([max(first[0], second[0]), max(first[1], second[1])])
    high = torch.tensor([min(first[2], second[2]), min(first[3], second[3])])
    centres = [
        low + (high - low) * torch.tensor([(column + 0.5) / parts, (row + 0.5) / parts])
        for parts in REGION_PARTS
        for row in range(parts)
        for column in range(parts)
    ]
    for view, (view_box, flip) in enumerate([(first, flip1), (second, flip2)]):
        found = weigh_cells(coordinate_view(view_box, flip, cells), region_weights(match.corners[view], cells, cells))[
            0
        ]
        half_cell = torch.tensor([view_box[2] - view_box[0], view_box[3] - view_box[1]]) / cells / 2
        assert found.shape == (COUNT, 2)
        assert ((found - torch.stack(centres)).abs() <= half_cell + 1e-5).all()


@pytest.mark.parametrize(("height", "width"), [(24, 24), (7, 5), (3, 3)])
def test_region_means_are_those_of_roi_align(height, width) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, height, width)
    corners = torch.tensor([[[0.1, 0.2], [0.7, 0.9]], [[0.0, 0.0], [1.0, 1.0]]])
    found = weigh_cells(maps, region_weights(corners, height, width))
    scale = torch.tensor([width, height, width, height])
    rows = torch.cat([torch.arange(2.0).unsqueeze(1), corners.flatten(1) * scale], dim=1)
    expected = [
        roi_align(maps, rows, (parts, parts), sampling_ratio=4, aligned=True).flatten(2).transpose(1, 2)
        for parts in REGION_PARTS
    ]
    torch.testing.assert_close(found, torch.cat(expected, dim=1), rtol=0, atol=1e-5)
    sums = region_weights(corners, height, width).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def model_of(*losses: str, **changes: object) -> LadderSiameseForPreTraining:
    torch.manual_seed(1)
    stages = ["stage1", "stage2", "stage3", "stage4"][: len(losses)]
    return LadderSiameseForPreTraining(
        LadderSiameseConfig(
            backbone_config=tiny_resnet(),
            level_names=stages,
            level_losses=list(losses),
            projection_hidden_size=16,
            projection_size=8,
            **changes,
        )
    )


def inputs() -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[0.0, 0, 0.6, 0.7], [0.2, 0.1, 0.9, 1.0]]).repeat(6, 1, 1)
    boxes[5] = torch.tensor([[0.0, 0, 0.3, 0.3], [0.6, 0.6, 1, 1]])  # no overlap
    flips = torch.tensor([[True, False]] * 3 + [[False, False]] * 3)
    torch.manual_seed(2)
    return {"pixel_values": torch.randn(6, 2, 3, 64, 64), "view_boxes": boxes, "view_flips": flips}


def test_the_loss_is_byols_of_the_region_means_over_pairs_that_overlap() -> None:
    model, batch = model_of("global+region").train(), inputs()
    reference = model_of("global+region").train()
    out = model(**batch)
    assert list(out.level_losses) == ["stage1.global", "stage1.region"]
    match = match_locations(batch["view_boxes"], batch["view_flips"], 4)
    assert match.valid.tolist() == [True] * 5 + [False]
    predictions, targets = [], []
    for view in range(2):
        with torch.no_grad():
            target_map = reference.target.backbone(batch["pixel_values"][:, view]).feature_maps[0]
        online_map = reference.backbone(batch["pixel_values"][:, view]).feature_maps[0]
        weights = region_weights(match.corners[view], *online_map.shape[-2:])
        with torch.no_grad():
            targets.append(reference.target.projectors["stage1"]["region"](weigh_cells(target_map, weights)))
        projected = reference.projectors["stage1"]["region"](weigh_cells(online_map, weights))
        predictions.append(reference.predictors["stage1"]["region"](projected))
    expected = symmetric_loss(torch.stack(predictions).unsqueeze(0), torch.stack(targets).unsqueeze(0), match.valid)[0]
    torch.testing.assert_close(out.level_losses["stage1.region"], expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.loss, sum(out.level_losses.values()), rtol=1e-6, atol=1e-6)
    out.loss.backward()
    assert model.projectors["stage1"]["region"].hidden.weight.grad.abs().sum() > 0


def test_regions_stand_beside_local_losses_that_match_features() -> None:
    model, batch = model_of("local+region", local_matching="feature").train(), inputs()
    out = model(**batch)
    assert list(out.level_losses) == ["stage1.local", "stage1.region"]
    alone = model_of("local", local_matching="feature").train()
    alone.load_state_dict({k: v for k, v in model_of("local+region").state_dict().items() if "region" not in k})
    again = alone(batch["pixel_values"])
    torch.testing.assert_close(out.level_losses["stage1.local"], again.level_losses["stage1.local"])
    with pytest.raises(ValueError, match=r"view_boxes is missing: .* region levels"):
        model(batch["pixel_values"])


def test_a_model_with_regions_is_loaded_as_it_was_saved(tmp_path) -> None:
    model = model_of("global", "global+local+region")
    model.save_pretrained(tmp_path)
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path)
    assert (
        loaded.config.levels
        == model.config.levels
        == [
            ("stage1", "global", 1.0),
            ("stage2", "local", 1.0),
            ("stage2", "global", 1.0),
            ("stage2", "region", 1.0),
        ]
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    shapes = {name: value.shape for name, value in loaded.project(torch.randn(2, 3, 64, 64)).items()}
    assert shapes["stage2.region"] == (2, COUNT, 8)


@pytest.mark.parametrize(
    ("entry", "kinds"),
    [
        ("both", ("local", "global")),
        ("region+global", ("global", "region")),
        ("region", ("region",)),
        ("global+global", ()),
        ("both+region", ()),
        ("global+", ()),
        ("", ()),
    ],
)
def test_sums_of_kinds(entry, kinds) -> None:
    assert loss_kinds(entry) == kinds
