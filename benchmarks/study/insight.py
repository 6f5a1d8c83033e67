"""What a loss at every stage changes inside training: gradient noise, curvature along a step, and rank, stage by stage.

    python benchmarks/study/insight.py docs/study/imagenette64 --methods byol ladder --seeds 0 1 2

Reads the runs of `ladder compare` (their weights must lie in FOLDER/runs), measures each at its start and at its end on
the same views, and writes FOLDER/insight.json and FOLDER/insight.png. docs/insight.md says what follows. Per
stage:

- signal: |E g|^2 / E|g - E g|^2 of the gradient g of the whole loss over mini-batches, with the bias of the mean
  removed: how much of a mini-batch's gradient is common to all of them.
- steadiness: cosine of the gradient before and after a step against it of 0.2 % of the weights' length, on the same
  batch: 1 where the loss is a plane, less where it curves. No unit, so losses of different scale compare.
- rank: effective rank (exp of the entropy of the singular values) of the pooled features of one
  view each of 1,024 further training images.

Cost: about 2 minutes a run on one core.
"""

import argparse
import copy
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

BATCHES, RANK_BATCHES = 32, 16
STEP = 0.002
MEASURES = ("signal", "steadiness", "rank")
DRAWN = (("signal", "start"), ("steadiness", "end"), ("rank", "end"))


def stage_gradients(model: Any, groups: dict[str, list[Any]], batch: dict[str, Any]) -> dict[str, Any]:
    """Gradient of the whole loss with respect to each stage of the online backbone, as one vector a stage."""
    from ladder_training.compare.gradients import gradient_by_stage

    return gradient_by_stage(model(**batch).loss, groups)


def signal(vectors: list[Any]) -> float:
    """|E g|^2 / E|g - E g|^2 from a sample; the square of a sample's mean is too large by variance / count."""
    import torch

    sample = torch.stack(vectors)
    mean = sample.mean(0)
    variance = (sample - mean).square().sum(1).sum().item() / (len(vectors) - 1)
    return (mean.square().sum().item() - variance / len(vectors)) / variance


def steadiness(model: Any, groups: dict[str, list[Any]], batch: dict[str, Any]) -> dict[str, float]:
    """Cosine of each stage's gradient before and after one step of all stages, each by `STEP` of its own length."""
    import torch

    before = stage_gradients(model, groups, batch)
    saved = {stage: [parameter.detach().clone() for parameter in group] for stage, group in groups.items()}
    with torch.no_grad():
        for stage, group in groups.items():
            length = torch.cat([parameter.flatten() for parameter in group]).norm()
            pieces = before[stage].split([parameter.numel() for parameter in group])
            for parameter, piece in zip(group, pieces, strict=True):
                parameter -= STEP * length / before[stage].norm() * piece.view_as(parameter)
    after = stage_gradients(model, groups, batch)
    with torch.no_grad():
        for stage, group in groups.items():
            for parameter, value in zip(group, saved[stage], strict=True):
                parameter.copy_(value)
    return {stage: torch.cosine_similarity(before[stage], after[stage], dim=0).item() for stage in groups}


def measure(model: Any, batches: list[dict[str, Any]], images: Any) -> dict[str, dict[str, float]]:
    """The three measures of one network."""
    import torch

    from ladder_training.compare.gradients import parameters_by_stage
    from modeling_ladder.losses import effective_rank

    with torch.no_grad():
        maps = model.eval().feature_maps(images)
    rank = {stage: effective_rank(cells.mean(dim=(2, 3))).item() for stage, cells in maps.items()}
    model = copy.deepcopy(model).train()
    groups = parameters_by_stage(model.backbone, model.backbone.config.stage_names)
    gradients = [stage_gradients(model, groups, batch) for batch in batches]
    steady = [steadiness(model, groups, batch) for batch in batches[:4]]
    return {
        "signal": {stage: signal([row[stage] for row in gradients]) for stage in groups},
        "steadiness": {stage: statistics.mean(row[stage] for row in steady) for stage in groups},
        "rank": rank,
    }


def measure_run(folder: Path) -> dict[str, Any]:
    """A run at its start and at its end, on the same batches."""
    import torch
    from transformers import set_seed

    from ladder_training.compare.gradients import view_batches
    from ladder_training.config.recipe import Recipe, resolve
    from ladder_training.pretraining.build import build_model
    from ladder_training.runs.record import RunRecord
    from ladder_training.runs.run_folder import PRETRAINING
    from modeling_ladder import LadderSiameseForPreTraining

    recipe = resolve(Recipe("run", "", RunRecord.read(folder).recipe.values, str(folder)))
    found = view_batches(recipe, BATCHES + RANK_BATCHES)
    # One view each of further images: rank is compared between networks, not with a test score.
    batches, images = found[:BATCHES], torch.cat([batch["pixel_values"][:, 0] for batch in found[BATCHES:]])
    set_seed(int(recipe.values.get("seed", 42)))
    start = measure(build_model(recipe), batches, images)
    end = measure(LadderSiameseForPreTraining.from_pretrained(folder / PRETRAINING), batches, images)
    return {"start": start, "end": end}


def spread(found: dict[str, Any], method: str, when: str, measure_name: str) -> dict[str, tuple[float, float]]:
    """Stage to mean and standard deviation over the seeds."""
    rows = [run[when][measure_name] for run in found[method].values()]
    columns = {stage: [row[stage] for row in rows] for stage in rows[0]}
    return {
        stage: (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
        for stage, values in columns.items()
    }


def table(found: dict[str, Any]) -> str:
    """One line per measure, time and method."""
    stages = ["stem", "stage1", "stage2", "stage3", "stage4"]
    lines = [f"| measure | when | method | {' | '.join(stages)} |", "|---" * (3 + len(stages)) + "|"]
    for name, when, method in itertools.product(MEASURES, ("start", "end"), found):
        row = spread(found, method, when, name)
        cells = [f"{row[s][0]:.3g} ± {row[s][1]:.1g}" if s in row else "" for s in stages]
        lines.append(f"| {name} | {when} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(found: dict[str, Any]) -> bytes:
    """Signal before training, steadiness and rank after it, a line per method, stages from left to right."""
    from ladder_model_cards.figures.style import LIGHT, WIDTH, canvas, legend_below, method_looks
    from ladder_model_cards.text import spoken

    drawing, png, style = canvas(WIDTH, 6.4)
    looks = method_looks(found, "byol")
    with style:
        for place, (name, when) in enumerate(DRAWN, start=1):
            axes = drawing.add_subplot(3, 1, place)
            for method in found:
                row = spread(found, method, when, name)
                colour = LIGHT.colour(looks[method].key)
                means, errors = [v[0] for v in row.values()], [v[1] for v in row.values()]
                stages = [spoken(stage) for stage in row]
                axes.errorbar(stages, means, yerr=errors, marker="o", capsize=3, label=method, color=colour)
            axes.set_title(f"{name[0].upper()}{name[1:]} at the {when} of training")
        legend_below(drawing, *drawing.axes[0].get_legend_handles_labels())
        return png()


def main() -> None:
    """Measure the runs that are not in the file yet, write it and the figure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="Folder that `ladder compare` wrote.")
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    import torch

    from ladder_training.runs.run_folder import hardware

    torch.set_num_threads(1)
    file = arguments.comparison / "insight.json"
    found = json.loads(file.read_text())["methods"] if file.is_file() else {}
    for method, seed in itertools.product(arguments.methods, map(str, arguments.seeds)):
        if seed not in found.setdefault(method, {}):
            found[method][seed] = measure_run(arguments.comparison / "runs" / method / f"seed-{seed}")
            file.write_text(json.dumps({"hardware": hardware(), "methods": found}, indent=1) + "\n", encoding="utf-8")
    (arguments.comparison / "insight.png").write_bytes(figure(found))
    print(f"{hardware()}, seeds {' '.join(map(str, arguments.seeds))}, mean ± standard deviation\n")
    print(table(found))


if __name__ == "__main__":
    main()
