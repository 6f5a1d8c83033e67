"""How much of a mini-batch gradient is common to all of them, in random networks with ReLUs: predicted and measured.

The first layer is linear; above it lie layers of centred ReLUs, as batch norm leaves them, with random weights. A loss
stands on the first layer (its own) or on the last; its gradient enters through a random predictor, as at the start of
training. docs/theory.md derives the predictions, which hold for many inputs and much wider layers.

    python benchmarks/study/gradient_noise.py docs/study/imagenette64

holds them against what insight.py and level_signals.py measured in real networks before their first step.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

MEAN = 1 / math.sqrt(2 * math.pi)  # of a ReLU of a standard normal variable
VARIANCE = 0.5 - MEAN**2
FORWARD = 0.25 / VARIANCE  # what a layer leaves of the small correlation of two images
BACK = 0.5  # what a layer leaves of the correlation of their gradients
GAIN = 0.5 / VARIANCE  # of the square of a gradient on its way back through a layer
# The same through a residual block: a shortcut and a branch with one more layer, of the same size, then a layer.
STAGES = ["stage1", "stage2", "stage3", "stage4"]
BLOCK_FORWARD = FORWARD * (1 + FORWARD) / 2
BLOCK_BACK = BACK * (1 + BACK * GAIN) / (1 + GAIN)


def predicted_share(layers: int) -> float:
    """Signal-to-noise ratio of the last loss's gradient in the first layer over that of the first layer's own loss.

    Args:
        layers: ReLU layers between them.
    """
    return (FORWARD * BACK) ** layers


def measured_share(
    layers: int, correlation: float = 0.8, inputs: int = 128, width: int = 2048, images: int = 2000
) -> float:
    """The same of one network, from the gradients of single images.

    Args:
        layers: ReLU layers between the first layer and the last loss.
        correlation: Of two views of an image.
        inputs: Size of an image.
        width: Of each layer.
        images: How many there are.
    """
    random = torch.Generator().manual_seed(layers)

    def gaussian(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=random) / rows**0.5

    common, *spread = (torch.randn(images, inputs, generator=random) for _ in range(3))
    views = [correlation**0.5 * common + (1 - correlation) ** 0.5 * part for part in spread]
    weights = [gaussian(inputs, width), *(gaussian(width, width) for _ in range(layers))]
    maps = [[view @ weights[0] for view in views]]
    for weight in weights[1:]:
        maps.append([_centred(view) @ weight for view in maps[-1]])
    predictor = gaussian(width, width)
    own, error = maps[0][1] @ predictor, maps[-1][1] @ predictor
    for weight, (first, _) in zip(weights[:0:-1], maps[-2::-1], strict=True):
        error = (error @ weight.T) * (first > 0)
    return signal_to_noise(error, views[0]) / signal_to_noise(own, views[0])


def predicted_ratio(level: int, stage: int, last: float, blocks: int = 4) -> float:
    """Signal-to-noise ratio of a level's gradient in a stage, from that of the last level in the last stage.

    Args:
        level: Block above which the loss stands, from 1.
        stage: Block whose weights the gradient is of; at most `level`.
        last: The ratio of the last level in the last stage.
        blocks: Of the network.
    """
    return last * BLOCK_FORWARD ** (level + stage - 2 * blocks) * BLOCK_BACK ** (level - stage)


def ratio_of_sum(norms: Sequence[float], ratios: Sequence[float]) -> float:
    """Signal-to-noise ratio of a sum of gradients whose signals and noises are all orthogonal.

    Args:
        norms: Of the gradients, signal and noise together.
        ratios: Of each.
    """
    pairs = list(zip(norms, ratios, strict=True))
    return sum(n**2 * r / (1 + r) for n, r in pairs) / sum(n**2 / (1 + r) for n, r in pairs)


def predicted_fall(blocks: int) -> float:
    """Signal-to-noise ratio of the last loss's gradient in a block over that in the one `blocks` further up."""
    return (BLOCK_BACK / BLOCK_FORWARD) ** blocks


def measured_falls(
    blocks: int = 4, correlation: float = 0.8, inputs: int = 128, width: int = 1536, images: int = 2000
) -> list[float]:
    """The same in each block of a random network over its last block, first block first.

    Args:
        blocks: Of the network: u <- (S g(u) + B g(A g(u))) / sqrt(2), g a centred ReLU.
        correlation: Of two views of an image.
        inputs: Size of an image.
        width: Of each layer.
        images: How many there are.
    """
    random = torch.Generator().manual_seed(0)

    def gaussian(rows: int) -> Tensor:
        return torch.randn(rows, width, generator=random) / rows**0.5

    common, *spread = (torch.randn(images, inputs, generator=random) for _ in range(3))
    views = [correlation**0.5 * common + (1 - correlation) ** 0.5 * part for part in spread]
    stem, weights = gaussian(inputs), [(gaussian(width), gaussian(width), gaussian(width)) for _ in range(blocks)]
    trace: list[tuple[Tensor, Tensor, Tensor]] = []  # of the first view: u, g(u), A g(u)
    ends = []
    for view in views:
        state = view @ stem
        for shortcut, first, second in weights:
            active = _centred(state)
            inner = active @ first
            if not ends:
                trace.append((state, active, inner))
            state = (active @ shortcut + _centred(inner) @ second) / 2**0.5
        ends.append(state)
    error, found = ends[1] @ gaussian(width), []
    for (shortcut, first, second), (state, active, inner) in zip(weights[::-1], trace[::-1], strict=True):
        inside = (error @ second.T) * (inner > 0) / (2 * VARIANCE) ** 0.5
        found.append(signal_to_noise(inside, active))
        error = (error @ shortcut.T / 2**0.5 + inside @ first.T) * (state > 0) / VARIANCE**0.5
    return [value / found[0] for value in found[::-1]]


def _centred(values: Tensor) -> Tensor:
    return (values.relu() - MEAN) / VARIANCE**0.5


def signal_to_noise(errors: Tensor, inputs: Tensor) -> float:
    """|E g|^2 / E|g - E g|^2 of the gradients g = error input' of single images, free of the bias of a sample."""
    products = (errors @ errors.T) * (inputs @ inputs.T)
    count = len(errors)
    alone = products.diagonal().mean().item()
    pairs = (products.sum().item() - count * alone) / (count * (count - 1))
    return pairs / (alone - pairs)


def table(folder: Path) -> str:
    """Predicted and measured at the start of real runs; BYOL's last stage is the one number taken from them."""
    runs = json.loads((folder / "insight.json").read_text(encoding="utf-8"))["methods"]
    last = _mean([run["start"]["signal"][STAGES[-1]] for run in runs["byol"].values()])
    lines = [f"| signal to noise at the start | {' | '.join(STAGES)} |", "|---" * (1 + len(STAGES)) + "|"]
    signals = json.loads((folder / "signals.json").read_text(encoding="utf-8"))
    for level, name in enumerate(STAGES, start=1):
        pair = f"{name}.global {name}.global"
        moments = [[run[stage][pair] for run in signals.values()] for stage in STAGES[:level]]
        found = [sum(m[0] for m in of_stage) / sum(m[1] for m in of_stage) for of_stage in moments]
        cells = [f"{predicted_ratio(level, stage, last):.3f} / {found[stage - 1]:.3f}" for stage in range(1, level + 1)]
        lines.append(f"| loss of {name} | {' | '.join(cells + [''] * (len(STAGES) - level))} |")
    for method, of_method in runs.items():
        norms = [_norms(folder / "cells" / method / f"seed-{seed}" / "gradients.json") for seed in of_method]
        cells = []
        for stage, name in enumerate(STAGES, start=1):
            levels = [level for level in norms[0][name] if STAGES.index(level.split(".")[0]) + 1 >= stage]
            ratios = [predicted_ratio(STAGES.index(level.split(".")[0]) + 1, stage, last) for level in levels]
            predicted = ratio_of_sum([_mean([norm[name][level] for norm in norms]) for level in levels], ratios)
            values = [run["start"]["signal"][name] for run in of_method.values()]
            cells.append(f"{predicted:.3f} / {_mean(values):.3f} ± {statistics.stdev(values):.3f}")
        lines.append(f"| {method}, all losses | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _norms(cell: Path) -> Mapping[str, Mapping[str, float]]:
    """Norm of each level's weighted gradient in each stage at the start."""
    return json.loads(cell.read_text(encoding="utf-8"))["start"]["norm"]


def main() -> None:
    """Print the table of a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="Folder that `ladder compare` and insight.py wrote.")
    print(table(parser.parse_args().comparison))


if __name__ == "__main__":
    main()
