"""A contact sheet of what the network will see: images with both crops drawn, the two views, and matching points."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ladder_model_cards.figures.style import LIGHT, hues, rgb
from modeling_ladder.matching import match_locations

from ..errors import BadImageError
from ..files import write_bytes
from ..images.decode import decode_image
from ..views.device import DeviceViews
from ..views.two_views import TwoViewTransform

Colour = tuple[int, int, int]

VIEW_COLOURS: tuple[Colour, Colour] = (rgb(LIGHT.series[1]), rgb(LIGHT.series[0]))
"""RGB of the frames of view 1 and view 2."""

_PAPER: Colour = rgb(LIGHT.paper)
_INK: Colour = rgb(LIGHT.ink)
_MARGIN = 8
_CAPTION = 24


def contact_sheet(
    images: Iterable[Any], transform: TwoViewTransform, *, seed: int = 0, grid_size: int = 3, cell: int = 224
) -> np.ndarray:
    """Draw one row per image: the image with both crop boxes, view 1, view 2.

    The points that the local loss compares, `grid_size` x `grid_size` over the overlap of the boxes, have the same
    colour in all three pictures. Views that do not overlap have no local loss and show no points.

    Args:
        images: Anything that `decode_image` reads; images that cannot be read are skipped.
        transform: Makes the views; with or without `device_mode`.
        seed: The i-th image gets `seed` + i.
        grid_size: Number of points along a side.
        cell: Side in pixels of each picture on the sheet.

    Returns:
        uint8 (caption + rows * (cell + margin), 3 * (cell + margin) + margin, 3) RGB.
    """
    rows = []
    for number, image in enumerate(images):
        try:
            pixels = decode_image(image, min_size=cell, value_range=getattr(transform, "value_range", None))
            views = transform(image, seed=seed + number)
        except BadImageError:
            continue
        rows.append(_row(pixels, views, transform, grid_size, cell))
    if not rows:
        rows = [np.full((cell, 3 * cell + 2 * _MARGIN, 3), _PAPER, np.uint8)]
    height = _CAPTION + len(rows) * (cell + _MARGIN)
    sheet = np.full((height, rows[0].shape[1] + 2 * _MARGIN, 3), _PAPER, np.uint8)
    for number, (text, ink) in enumerate(zip(("image", "view 1", "view 2"), (_INK, *VIEW_COLOURS), strict=True)):
        corner = (_MARGIN + number * (cell + _MARGIN), _CAPTION - 8)
        cv2.putText(sheet, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
    for number, row in enumerate(rows):
        top = _CAPTION + number * (cell + _MARGIN)
        sheet[top : top + cell, _MARGIN:-_MARGIN] = row
    return sheet


def save_contact_sheet(
    images: Iterable[Any], transform: TwoViewTransform, path: str | os.PathLike[str], *, seed: int = 0, **options: Any
) -> Path:
    """Write a contact sheet as a PNG file, in one step.

    Args:
        images: As for `contact_sheet`.
        transform: As for `contact_sheet`.
        path: Path of the PNG file; missing folders are created.
        seed: As for `contact_sheet`.
        **options: `grid_size` and `cell` of `contact_sheet`.

    Returns:
        The path.
    """
    path = Path(path)
    sheet = contact_sheet(images, transform, seed=seed, **options)
    encoded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    write_bytes(path, encoded.tobytes())
    return path


def source_points(boxes: np.ndarray, grid_size: int) -> np.ndarray:
    """Compute the grid over the overlap of two boxes (2, 4): (K * K, 2), x and y in [0, 1] of the source image."""
    low, high = boxes[:, :2].max(axis=0), boxes[:, 2:].min(axis=0)
    steps = (np.arange(grid_size) + 0.5) / grid_size
    columns, rows = np.meshgrid(steps, steps)
    return low + np.stack([columns, rows], axis=-1).reshape(-1, 2) * (high - low)


def _row(
    pixels: np.ndarray, views: dict[str, torch.Tensor], transform: TwoViewTransform, grid_size: int, cell: int
) -> np.ndarray:
    if "view_parameters" in views:
        views = DeviceViews(transform)(views)
    boxes, flips = views["view_boxes"], views["view_flips"]
    match = match_locations(boxes[None], flips[None], grid_size)
    colours = hues(grid_size * grid_size)
    source, scale, offset = _fit(pixels, cell)
    for box, colour in zip(boxes.numpy(), VIEW_COLOURS, strict=True):
        corners = np.rint(box.reshape(2, 2) * scale + offset).astype(int).tolist()
        cv2.rectangle(source, corners[0], corners[1], colour, 2, cv2.LINE_AA)
    pictures = [source]
    for view, frame in enumerate(VIEW_COLOURS):
        picture = _as_levels(views["pixel_values"][view], transform)
        picture = cv2.resize(picture, (cell, cell), interpolation=cv2.INTER_LINEAR)
        if match.valid[0]:
            _draw_points(picture, match.points[view][0].numpy() * cell, colours)
        cv2.rectangle(picture, (0, 0), (cell - 1, cell - 1), frame, 2)
        pictures.append(picture)
    if match.valid[0]:
        _draw_points(source, source_points(boxes.numpy(), grid_size) * scale + offset, colours)
    gap = np.full((cell, _MARGIN, 3), _PAPER, np.uint8)
    return np.concatenate([pictures[0], gap, pictures[1], gap, pictures[2]], axis=1)


def _fit(pixels: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre the image in a square; its coordinates in [0, 1] times scale plus offset are those in the square."""
    height, width = pixels.shape[:2]
    size = (max(1, round(cell * width / max(width, height))), max(1, round(cell * height / max(width, height))))
    left, top = (cell - size[0]) // 2, (cell - size[1]) // 2
    square = np.full((cell, cell, 3), _PAPER, np.uint8)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    square[top : top + size[1], left : left + size[0]] = small
    return square, np.array(size, float), np.array([left, top], float)


def _as_levels(view: torch.Tensor, transform: TwoViewTransform) -> np.ndarray:
    """Undo the normalisation: uint8 (size, size, 3)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    levels = (view * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def _draw_points(picture: np.ndarray, points: np.ndarray, colours: list[Colour]) -> None:
    for (x, y), colour in zip(np.rint(points).astype(int).tolist(), colours, strict=True):
        cv2.circle(picture, (x, y), 4, _PAPER, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), 3, colour, -1, cv2.LINE_AA)
