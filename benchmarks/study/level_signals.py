"""Do the levels' gradients share their signal and not their noise? Measured in a recipe's networks before training.

    python benchmarks/study/level_signals.py benchmarks/study/imagenette64.yaml docs/study/imagenette64/signals.json

For each stage and each pair of levels above it: the signal-to-noise ratio of each level, the cosine of their signals
(means over mini-batches, free of the bias of a sample) and the correlation of their noises. docs/theory.md, section 5,
assumes 1 and 0. Cost: about a minute a seed on one core.
"""

import argparse
import copy
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BATCHES = 32


def moments(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Inner products of the means, and of the deviations, of two gradients over the same batches.

    Args:
        first: (batches, parameters); second: the same of another level, or `first` itself.
    """
    products = first @ second.T
    count = len(first)
    together = products.diagonal().mean().item()
    signal = (products.sum().item() - count * together) / (count * (count - 1))
    return signal, together - signal


def level_gradients(model: Any, batches: list[dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Stage to level to the gradients of all batches, (batches, parameters), of levels at or above the stage."""
    from ladder_training.compare.gradients import gradient_by_stage, parameters_by_stage

    model = copy.deepcopy(model).train()
    groups = parameters_by_stage(model.backbone, model.backbone.config.stage_names)
    stages, whole = list(groups), model.config
    rows: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for batch, (level, kind, weight) in itertools.product(batches, whole.levels):
        model.config = copy.copy(whole)
        model.config.level_names, model.config.level_losses, model.config.level_weights = [level], [kind], [weight]
        for stage, vector in gradient_by_stage(model(**batch).loss, groups).items():
            if stages.index(stage) <= stages.index(level):
                rows[stage][f"{level}.{kind}"].append(vector)
    return {stage: {level: torch.stack(vectors) for level, vectors in row.items()} for stage, row in rows.items()}


def measure(recipe_file: str, seed: int, depth: int | None = None) -> dict[str, dict[str, tuple[float, float]]]:
    """Stage to "level level" to the moments of one network; `depth` blocks a stage instead of the recipe's."""
    from transformers import set_seed

    from ladder_training.compare.gradients import view_batches
    from ladder_training.config.recipe import Recipe, read_recipe, resolve
    from ladder_training.pretraining.build import build_model

    read = read_recipe(recipe_file)
    values = {**read.values, "method": "ladder", "seed": seed}
    if depth is not None:
        backbone = values["backbone_config"]
        values["backbone_config"] = {**backbone, "depths": [depth] * len(backbone["depths"])}
    recipe = resolve(Recipe(read.name, read.text, values, recipe_file))
    names = ("pixel_values", "view_boxes", "view_flips")
    batches = [{name: batch[name] for name in names if name in batch} for batch in view_batches(recipe, BATCHES)]
    set_seed(seed)
    return {
        stage: {
            f"{first} {second}": moments(row[first], row[second])
            for first, second in itertools.combinations_with_replacement(row, 2)
        }
        for stage, row in level_gradients(build_model(recipe), batches).items()
    }


def table(found: list[dict[str, dict[str, tuple[float, float]]]]) -> str:
    """A line per stage and pair of levels, from the moments' mean over the seeds."""
    lines = [
        "| stage | levels | signal to noise of both | cosine of signals | correlation of noises |",
        "|---" * 5 + "|",
    ]
    for stage in found[0]:
        mean = {
            pair: [sum(run[stage][pair][part] for run in found) / len(found) for part in (0, 1)]
            for pair in found[0][stage]
        }
        for pair, (signal, noise) in mean.items():
            first, second = pair.split()
            alone = [mean[f"{level} {level}"] for level in (first, second)]
            ratios = " and ".join(f"{value[0] / value[1]:.3f}" for value in alone)
            if first == second:
                lines.append(f"| {stage} | {first} | {alone[0][0] / alone[0][1]:.3f} | | |")
                continue
            size = alone[0][0] * alone[1][0]
            cosine = f"{signal / math.sqrt(size):.2f}" if size > 0 else ""
            correlation = noise / math.sqrt(alone[0][1] * alone[1][1])
            lines.append(f"| {stage} | {first}, {second} | {ratios} | {cosine} | {correlation:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write the moments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--depth", type=int, help="Blocks a stage; default: the recipe's.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(arguments.recipe, seed, arguments.depth) for seed in arguments.seeds]
    arguments.output.write_text(
        json.dumps(dict(zip(arguments.seeds, found, strict=True)), indent=1) + "\n", encoding="utf-8"
    )
    print(table(found))


if __name__ == "__main__":
    main()
