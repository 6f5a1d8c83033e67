"""Figures of what the stages have learned: nearest neighbours, and principal components of the feature maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CardError
from ..files import write_whole
from ..text import spoken
from .style import canvas, label

MAX_IMAGES = 1000
BATCH = 32


def feature_figures(
    model_dir: str | Path,
    images: Sequence[Any],
    out: str | Path,
    *,
    labels: Sequence[int] | None = None,
    queries: int = 4,
    neighbours: int = 6,
    view_size: int | None = None,
) -> list[Path]:
    """Draw the nearest neighbours of a few images for every stage, and the feature maps as colours.

    The figures show the images themselves, so give only images that may be published.

    Args:
        model_dir: Folder of a published native backbone, with or without preprocessor_config.json.
        images: PIL images or uint8 arrays (height, width, 3), held out of training. The first 1,000 are used.
        out: Folder for the PNG files, usually DIR/figures.
        labels: Class of each image. With labels, the query images come from different classes.
        queries: Number of query images, spread evenly over `images` or their classes.
        neighbours: Number of neighbours per query image.
        view_size: Height and width in pixels to which images are resized. None takes the preprocessor's.

    Returns:
        Paths of neighbours-STAGE.png for every stage, then of pca.png if any feature map is larger than 1 x 1.

    Raises:
        CardError: There are fewer than two images, or an image has the wrong type.
    """
    import torch

    from modeling_ladder import load_native_backbone

    pictures = [_square(image) for image in list(images)[:MAX_IMAGES]]
    if len(pictures) < 2:
        raise CardError(f"figures of nearest neighbours need at least two images, {len(pictures)} given")
    model = load_native_backbone(model_dir).eval()
    inputs = _prepare(model_dir, pictures, view_size)
    shown = _spread(len(pictures), queries, None if labels is None else list(labels)[: len(pictures)])
    pooled: list[list[Any]] = []
    maps: list[list[Any]] = []
    with torch.no_grad():
        for start in range(0, len(pictures), BATCH):
            found = model(pixel_values=inputs[start : start + BATCH]).feature_maps
            pooled.append([stage.mean(dim=(2, 3)) for stage in found])
            picked = [index - start for index in shown if start <= index < start + BATCH]
            maps.append([stage[picked] for stage in found])
    out, written = Path(out), []
    for place, stage in enumerate(model.out_features):
        features = torch.nn.functional.normalize(torch.cat([row[place] for row in pooled]).float(), dim=1)
        similarity = features[shown] @ features.T
        similarity[torch.arange(len(shown)), torch.tensor(shown)] = -2
        best = similarity.topk(min(neighbours, len(pictures) - 1), dim=1)
        png = _neighbours(pictures, shown, best.indices.tolist(), best.values.tolist(), stage)
        write_whole(out / f"neighbours-{_file_part(stage)}.png", png)
        written.append(out / f"neighbours-{_file_part(stage)}.png")
    stage_maps = {stage: torch.cat([row[i] for row in maps]).float() for i, stage in enumerate(model.out_features)}
    stage_maps = {stage: values for stage, values in stage_maps.items() if min(values.shape[2:]) > 1}
    if stage_maps:
        write_whole(out / "pca.png", _components([pictures[index] for index in shown], stage_maps))
        written.append(out / "pca.png")
    return written


def _spread(count: int, wanted: int, labels: list[int] | None) -> list[int]:
    """Choose the indices of `wanted` images, spread evenly over all or, with labels, over the first of each class."""
    import numpy as np

    classes: dict[int, int] = {}
    for place, name in enumerate(labels or []):
        classes.setdefault(int(name), place)
    pool = sorted(classes.values()) if len(classes) >= wanted else list(range(count))
    places = np.linspace(0, len(pool) - 1, min(wanted, len(pool))).round().astype(int)
    return [pool[place] for place in dict.fromkeys(places.tolist())]


def principal_colours(maps: Any) -> Any:
    """Turn feature maps into colours: the first three principal components over all positions of all images.

    Args:
        maps: float32 tensor (images, channels, height, width).

    Returns:
        float32 array (images, height, width, 3) in [0, 1]; 0 and 1 are the 2nd and 98th percentile of a component.
    """
    import torch

    count, channels, height, width = maps.shape
    points = maps.permute(0, 2, 3, 1).reshape(-1, channels).double()
    points = points - points.mean(dim=0)
    _, vectors = torch.linalg.eigh(points.T @ points)
    top = vectors.flip(1)[:, :3]
    # The sign of a component is arbitrary. It is fixed here, so equal features always get equal colours.
    rows = top.abs().argmax(dim=0, keepdim=True)
    scores = points @ (top * top.gather(0, rows).sign())
    scores = torch.nn.functional.pad(scores, (0, 3 - scores.shape[1]))
    low, high = (torch.quantile(scores[:: 1 + len(scores) // 100_000], q, dim=0) for q in (0.02, 0.98))
    scores = ((scores - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return scores.reshape(count, height, width, 3).float().numpy()


def _square(image: Any) -> Any:
    """Cut the centre square out of an image: uint8 (side, side, 3)."""
    import numpy as np

    if hasattr(image, "convert"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise CardError(
            f"images must be PIL images or uint8 arrays (height, width, 3), not {pixels.dtype} {pixels.shape}"
        )
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side, :3]


def _prepare(model_dir: str | Path, pictures: list[Any], view_size: int | None) -> Any:
    """Prepare the images for the model: float32 (images, 3, height, width)."""
    import torch
    from torch.nn.functional import interpolate
    from transformers import AutoImageProcessor

    if view_size is None and (Path(model_dir) / "preprocessor_config.json").is_file():
        processor = AutoImageProcessor.from_pretrained(model_dir, trust_remote_code=False)
        return processor(pictures, return_tensors="pt")["pixel_values"]
    size = view_size or 224
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    rows = []
    for picture in pictures:
        values = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        rows.append(interpolate(values, (size, size), mode="bilinear", antialias=True))
    return (torch.cat(rows) / 255 - mean) / std


def _neighbours(
    pictures: list[Any], queries: list[int], best: list[list[int]], similarity: list[list[float]], stage: str
) -> bytes:
    columns = 1 + len(best[0])
    figure, png, style = canvas(0.85 * columns, 1.05 * len(queries) + 0.4)
    with style:
        grid = figure.subplots(len(queries), columns, squeeze=False)
        for row, query in enumerate(queries):
            for column, index in enumerate([query, *best[row]]):
                axes = grid[row][column]
                axes.imshow(pictures[index], interpolation="nearest" if pictures[index].shape[0] < 64 else None)
                axes.axis("off")
                title = "image" if column == 0 else f"{similarity[row][column - 1]:.2f}"
                axes.set_title(title, fontsize=9, pad=2, loc="center")
        figure.suptitle(label(f"Most similar by the features of {spoken(stage)} (1.00: equal)"), fontsize=10)
        return png()


def _components(pictures: list[Any], maps: dict[str, Any]) -> bytes:
    figure, png, style = canvas(1.12 * (1 + len(maps)), 1.12 * len(pictures) + 0.4)
    with style:
        grid = figure.subplots(len(pictures), 1 + len(maps), squeeze=False)
        colours = {stage: principal_colours(values) for stage, values in maps.items()}
        titles = ["image", *(f"{spoken(stage)}\n{c.shape[1]} × {c.shape[2]}" for stage, c in colours.items())]
        for row, picture in enumerate(pictures):
            for column, image in enumerate([picture, *(c[row] for c in colours.values())]):
                grid[row][column].imshow(image, interpolation="nearest" if image.shape[0] < 64 else None)
                grid[row][column].axis("off")
                if row == 0:
                    title = "\n".join(map(label, titles[column].split("\n")))
                    grid[row][column].set_title(title, fontsize=9, pad=3, loc="center")
        return png()


def _file_part(stage: str) -> str:
    return "".join(char if char.isalnum() or char in "._" else "_" for char in stage)[:60]
