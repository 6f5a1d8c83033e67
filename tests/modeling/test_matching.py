"""Matched points show the same place of the source image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_ladder.matching import (
    grid_cells,
    match_features,
    match_locations,
    pooling_weights,
    sample_points,
    sampling_weights,
    take_cells,
)

box = st.tuples(st.floats(0, 0.7), st.floats(0, 0.7), st.floats(0.2, 1), st.floats(0.2, 1)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1.0), min(b[1] + b[3], 1.0))
)


def coordinate_view(view_box: tuple[float, ...], flip: bool, cells: int) -> torch.Tensor:
    """A feature map whose cells hold the source coordinates x, y of their centres."""
    x0, y0, x1, y1 = view_box
    centres = (torch.arange(cells) + 0.5) / cells
    x = x0 + centres * (x1 - x0)
    if flip:
        x = x.flip(0)
    y = y0 + centres * (y1 - y0)
    return torch.stack([x.expand(cells, cells), y.unsqueeze(1).expand(cells, cells)]).unsqueeze(0)


@settings(max_examples=200, deadline=None)
@given(box, box, st.booleans(), st.booleans(), st.integers(4, 16), st.integers(1, 9))
def test_matched_points_agree_to_half_a_cell(first, second, flip1, flip2, cells, grid) -> None:
    boxes = torch.tensor([[first, second]])
    flips = torch.tensor([[flip1, flip2]])
    match = match_locations(boxes, flips, grid)
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    area = max(width, 0) * max(height, 0)
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    if abs(area - 0.01 * smaller) > 1e-6:
        assert match.valid.item() == (area > 0.01 * smaller)
    if not match.valid:
        return
    maps = [coordinate_view(first, flip1, cells), coordinate_view(second, flip2, cells)]
    sampled = [sample_points(maps[view], match.points[view])[0] for view in range(2)]
    steps = (np.arange(grid) + 0.5) / grid
    low = np.array([max(first[0], second[0]), max(first[1], second[1])])
    truth = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) * np.array([width, height]) + low
    for view, view_box in enumerate((first, second)):
        half_cell = np.array([view_box[2] - view_box[0], view_box[3] - view_box[1]]) / cells / 2
        assert (np.abs(sampled[view].numpy() - truth) <= half_cell + 1e-5).all()


@pytest.mark.parametrize("mutant", ["flips ignored", "boxes ignored"])
def test_the_property_notices_wrong_matching(mutant) -> None:
    first, second = (0.0, 0.0, 0.5, 0.6), (0.2, 0.1, 0.9, 1.0)
    boxes, flips = torch.tensor([[first, second]]), torch.tensor([[True, False]])
    used_boxes = torch.tensor([[[0.0, 0, 1, 1]] * 2]) if mutant == "boxes ignored" else boxes
    used_flips = torch.zeros_like(flips) if mutant == "flips ignored" else flips
    match = match_locations(used_boxes, used_flips, 4)
    sampled = [
        sample_points(coordinate_view(view_box, flip, 16), match.points[view])[0]
        for view, (view_box, flip) in enumerate([(first, True), (second, False)])
    ]
    assert (sampled[0] - sampled[1]).abs().max() > 0.1


def test_pairs_without_overlap_are_invalid_and_sample_inside_the_view() -> None:
    boxes = torch.tensor([[[0.0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]], [[0.0, 0, 0.4, 0.4], [0.39999, 0, 1, 1]]])
    match = match_locations(boxes, torch.zeros(2, 2, dtype=torch.bool), 3)
    assert match.valid.tolist() == [False, False]
    for points in match.points:
        assert ((points > 0) & (points < 1)).all()


def test_bilinear_by_hand() -> None:
    cells = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    points = torch.tensor([[[0.5, 0.5], [0.25, 0.25], [0.75, 0.25], [0.5, 0.25], [0.0, 1.0]]])
    assert sample_points(cells, points)[0, :, 0].tolist() == pytest.approx([1.5, 0.0, 1.0, 0.5, 2.0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(56, 56), (7, 5), (1, 3), (2, 2)])
def test_samples_and_their_gradient_are_those_of_grid_sample(layout, height, width) -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 8, height, width).contiguous(memory_format=layout).requires_grad_()
    # Inside, on the border, and outside by rounding.
    points = torch.cat([torch.rand(3, 40, 2) * 1.02 - 0.01, torch.tensor([[0.0, 1], [1, 0]]).expand(3, 2, 2)], dim=1)
    weight = torch.randn(3, 42, 8)
    grid = (points * 2 - 1).unsqueeze(2)
    expected = torch.nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    expected = expected.squeeze(-1).transpose(1, 2)
    found = sample_points(maps, points)
    torch.testing.assert_close(found, expected, rtol=0, atol=4e-6)
    first, second = (torch.autograd.grad((values * weight).sum(), maps)[0] for values in (found, expected))
    torch.testing.assert_close(first, second, rtol=0, atol=2e-5)
    assert first.is_contiguous(memory_format=torch.channels_last), "as the backbone's own gradients"
    sums = sampling_weights(points, height, width).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_samples_keep_the_type_of_the_map_under_autocast() -> None:
    maps, points = torch.randn(2, 4, 6, 6), torch.rand(2, 9, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sample_points(maps, points), sample_points(maps.clone(), points.double()))
        assert sample_points(maps, points).dtype == torch.float32
        assert sample_points(maps.bfloat16(), points).dtype == torch.bfloat16


@pytest.mark.parametrize(("height", "width", "grid"), [(14, 14, 7), (56, 56, 7), (10, 13, 7), (7, 20, 7), (5, 4, 3)])
def test_cells_and_their_gradient_are_those_of_adaptive_pooling(height, width, grid) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width, requires_grad=True)
    size = (min(grid, height), min(grid, width))
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, size).flatten(2).transpose(1, 2)
    found = grid_cells(maps, grid)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    weight = torch.randn_like(expected)
    first, second = (torch.autograd.grad((values * weight).sum(), maps)[0] for values in (found, expected))
    torch.testing.assert_close(first, second, rtol=0, atol=2e-6)
    sums = pooling_weights(height, width, grid, maps.device).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_half_precision_maps_keep_their_type_and_float32_coordinates() -> None:
    cells = torch.randn(1, 4, 56, 56)
    points = torch.rand(1, 49, 2)
    half = sample_points(cells.bfloat16(), points)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), sample_points(cells.bfloat16().float(), points), rtol=0.01, atol=0.02)


def test_grid_cells_pool_large_maps_and_keep_small_ones() -> None:
    cells = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert grid_cells(cells, 2)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert grid_cells(cells, 7)[0, :, 0].tolist() == list(range(16))


def test_feature_matching_finds_the_permutation() -> None:
    torch.manual_seed(0)
    cells = torch.randn(3, 9, 16)
    order = torch.stack([torch.randperm(9) for _ in range(3)])
    other = take_cells(cells, order) * 5  # scale must not matter
    index = match_features(cells, other)
    assert torch.equal(
        take_cells(order, index) if order.dim() == 3 else order.gather(1, index), torch.arange(9).expand(3, 9)
    )
    torch.testing.assert_close(take_cells(other, index), cells * 5)
