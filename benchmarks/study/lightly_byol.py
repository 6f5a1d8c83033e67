"""Sanity against the outside: BYOL of lightly 1.6 and of this package, same recipe, must reach the same kNN accuracy.

    python benchmarks/study/lightly_byol.py benchmarks/study/imagenette64.yaml --dataset ../shared/data/imagenette128 \\
        --steps 300 --seeds 0 1 2 --output docs/study/lightly.json

For every seed two runs with the recipe's backbone, views, head sizes, optimizer, schedules and precision: one by
`ladder pretrain --method byol`, one that takes the transform, the heads, the loss, the momentum update and the momentum
schedule from lightly (`pip install lightly`), the loop from this file. Each is scored by `ladder evaluate knn`. What
still differs: lightly's heads have the bias in their last layer, not the first; its loss is a quarter of ours, which
AdamW does not see; the order of the images and all random numbers. Prints the table and writes it, with the machine, as
JSON; a seed that stands in the file is not run again. Cost: about 6 minutes a seed on one core, most of it lightly's
views.
"""

import argparse
import copy
import io
import json
import statistics
from pathlib import Path
from typing import Any

STAGES = ("stage1", "stage2", "stage3", "stage4", "all")


def lightly_run(recipe: Any, folder: Path) -> None:
    """Train with lightly's parts and write the backbone as `ladder evaluate` reads it."""
    import torch
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform
    from lightly.utils.scheduler import cosine_schedule
    from PIL import Image
    from transformers import get_cosine_schedule_with_warmup, set_seed

    from ladder_training.models.processor import image_processor
    from ladder_training.pretraining.build import build_model, load_data, network_config, training_arguments

    config, arguments, views = network_config(recipe), training_arguments(recipe, folder), recipe.views
    seed, steps = arguments.seed, arguments.max_steps
    set_seed(seed)
    backbone = build_model(recipe).backbone  # the very weights that our run of this seed starts from
    width = backbone.channels[-1]
    hidden, size = config.projection_hidden_size, config.projection_size
    projector, predictor = BYOLProjectionHead(width, hidden, size), BYOLPredictionHead(size, hidden, size)
    online = torch.nn.ModuleDict({"backbone": backbone, "projector": projector})
    target = copy.deepcopy(online).requires_grad_(False)

    common = {
        "input_size": views.image_size,
        "min_scale": views.min_scale,
        "sigmas": (views.min_sigma, views.max_sigma),
    }
    first = BYOLView1Transform(gaussian_blur=views.blur[0], solarization_prob=views.solarize[0], **common)
    second = BYOLView2Transform(gaussian_blur=views.blur[1], solarization_prob=views.solarize[1], **common)
    transform = BYOLTransform(view_1_transform=first, view_2_transform=second)
    images = load_data(recipe).train.with_format(None)
    column = next(name for name, feature in images.features.items() if type(feature).__name__ == "Image")
    images = images.cast_column(column, type(images.features[column])(decode=False))

    def collate(rows: list[dict[str, Any]]) -> list[torch.Tensor]:
        pairs = [transform(Image.open(io.BytesIO(row[column]["bytes"])).convert("RGB")) for row in rows]
        return [torch.stack(view) for view in zip(*pairs, strict=True)]

    loader = torch.utils.data.DataLoader(
        images, batch_size=arguments.per_device_train_batch_size, shuffle=True, drop_last=True, collate_fn=collate
    )
    trained = [*online.parameters(), *predictor.parameters()]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": arguments.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(arguments.warmup_steps), steps)
    criterion = NegativeCosineSimilarity()

    def project(network: torch.nn.ModuleDict, view: torch.Tensor) -> torch.Tensor:
        return network["projector"](network["backbone"](view).feature_maps[-1].mean(dim=(2, 3)))

    step = 0
    while step < steps:
        for view_1, view_2 in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                with torch.no_grad():
                    targets = [project(target, view) for view in (view_1, view_2)]
                predictions = [predictor(project(online, view)) for view in (view_1, view_2)]
            loss = 0.5 * sum(
                criterion(p.float(), z.float()) for p, z in zip(predictions, reversed(targets), strict=True)
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm or float("inf"))
            optimizer.step()
            schedule.step()
            update_momentum(online, target, m=cosine_schedule(step, steps, config.base_momentum, 1.0))
            step += 1
            if step % 100 == 0:
                print(f"lightly, seed {seed}: step {step}, loss {loss.item():.3f}", flush=True)
            if step == steps:
                break
    backbone.save_pretrained(folder)
    image_processor(views.image_size, tuple(views.image_mean), tuple(views.image_std)).save_pretrained(folder)


def knn(folder: Path, dataset: str) -> dict[str, float]:
    """Accuracy of each stage, in percent."""
    from ladder_training import evaluation

    metrics = evaluation.knn(str(folder), dataset).metrics
    return {stage: 100 * metrics[stage]["accuracy"] for stage in STAGES}


def table(seeds: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds, and the paired difference."""
    lines = ["| kNN | ours | lightly | ours - lightly |", "|---|---|---|---|"]
    for stage in STAGES:
        ours = [row["ours"][stage] for row in seeds.values()]
        theirs = [row["lightly"][stage] for row in seeds.values()]
        columns = [ours, theirs, [a - b for a, b in zip(ours, theirs, strict=True)]]
        spread = [statistics.stdev(column) if len(column) > 1 else float("nan") for column in columns]
        cells = [f"{statistics.mean(c):.1f} ± {s:.1f}" for c, s in zip(columns, spread, strict=True)]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/lightly"), help="Folder of the weights.")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    import lightly
    import torch

    from ladder_training.config.recipe import read_recipe, resolve
    from ladder_training.pretraining.run import pretrain
    from ladder_training.runs.run_folder import hardware

    torch.set_num_threads(1)
    done = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {"seeds": {}}
    for seed in arguments.seeds:
        row = done["seeds"].setdefault(str(seed), {})
        for name in ("ours", "lightly"):
            if name in row:
                continue
            folder = arguments.runs / f"{name}-{seed}"
            changes = {"dataset": arguments.dataset, "method": "byol", "max_steps": arguments.steps, "seed": seed}
            recipe = resolve(read_recipe(arguments.recipe), {**changes, "output": str(folder)})
            if name == "ours":
                pretrain(recipe)
            else:
                lightly_run(recipe, folder)
            row[name] = knn(folder, arguments.dataset)
            done |= {"steps": arguments.steps, "lightly": lightly.__version__, "hardware": hardware()}
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    finished = {seed: row for seed, row in done["seeds"].items() if len(row) == 2}
    print(f"{done['steps']} steps, {len(finished)} seeds, lightly {done['lightly']}, {done['hardware']}\n")
    print(table(finished))


if __name__ == "__main__":
    main()
