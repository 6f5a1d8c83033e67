"""Pretrain other self-supervised methods as the study pretrains BYOL and the Ladder, for `ladder compare` to score.

    python benchmarks/study/peers.py benchmarks/study/imagenette96.yaml --methods simclr vicreg --seeds 0 1 2 \\
        --output runs/peers96

The methods are lightly's (siamese_methods.py; `pip install lightly`). Everything else is the recipe's: the same
backbone with the same first weights for a seed, the same images in the same order with the same two views (this
package's loader), AdamW without decay of norms and biases, warm-up and cosine, bf16, number of steps. Each run leaves a
backbone that transformers loads, and what it cost, in OUTPUT/METHOD/seed-S; what is there is not run again. With
`--learning_rates` (for a sweep on development images) in OUTPUT/METHOD-RATE/seed-S. To score them:

    ladder compare benchmarks/study/imagenette96.yaml --variants benchmarks/study/peers96.yaml \\
        --methods simclr vicreg --gradients false --evaluations benchmarks/study/convergence96.yaml \\
        --output docs/study/peers96

`supervised` trains the same network with the labels of the same images (supervised.py): an upper bound.

Cost: 3 to 5 minutes of one core a run of 1,000 steps.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RATES = {
    "simclr": 1e-3,
    "mocov2": 1e-3,
    "simsiam": 1e-3,
    "barlowtwins": 1e-3,
    "vicreg": 1e-3,
    "densecl": 1e-3,
    "swav": 2e-3,
    "dino": 2e-3,
    "supervised": 2e-3,
}
"""Learning rate of each method, chosen on development images (docs/study.md); of the last three the recipe's."""


def train(method_name: str, recipe: Any, learning_rate: float) -> tuple[Any, dict[str, Any]]:
    """Train one method.

    Args:
        method_name: Of `siamese_methods.METHODS`, or "supervised".
        recipe: Resolved recipe of the study, with its seed.
        learning_rate: Peak of AdamW's rate.

    Returns:
        The backbone, and what the run cost.
    """
    import torch
    from datasets import ClassLabel
    from siamese_methods import METHODS, SiameseMethod
    from supervised import Supervised, labelled_batches
    from transformers import get_cosine_schedule_with_warmup, set_seed

    from ladder_training.loading.loader import ViewLoader
    from ladder_training.pretraining.build import build_model, build_views, load_data, training_arguments
    from ladder_training.runs.run_folder import hardware

    arguments = training_arguments(recipe, Path(str(recipe.run.output)))
    set_seed(arguments.seed)
    backbone = build_model(recipe).backbone  # the very weights that the study's runs of this seed start from
    batch_size, steps = arguments.per_device_train_batch_size, arguments.max_steps
    data, views, image_column = load_data(recipe).train, build_views(recipe), recipe.data.image_column
    batches: Iterable[dict[str, torch.Tensor]]
    if method_name == "supervised":
        labels = next(name for name, feature in data.features.items() if isinstance(feature, ClassLabel))
        method: SiameseMethod = Supervised(backbone, data.features[labels].num_classes)
        batches = labelled_batches(data, views, batch_size, arguments.seed, image_column or "image", labels)
    else:
        method = METHODS[method_name](backbone)
        batches = ViewLoader(data, views, batch_size=batch_size, seed=arguments.seed, image_column=image_column)
    method = method.to(memory_format=torch.channels_last).train()
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": arguments.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(arguments.warmup_steps), steps)
    started, processor_started = time.monotonic(), time.process_time()
    found = []
    for step, batch in enumerate(itertools.islice(iter(batches), steps), start=1):
        inputs = [view.contiguous(memory_format=torch.channels_last) for view in batch["pixel_values"].unbind(dim=1)]
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            loss = method(*inputs, *([batch["labels"]] if "labels" in batch else []))
        optimizer.zero_grad()
        loss.backward()
        if hasattr(method, "before_step"):
            method.before_step(step - 1)
        torch.nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm or float("inf"))
        optimizer.step()
        schedule.step()
        method.after_step(step, steps)
        found.append(loss.item())
        if not torch.isfinite(loss):
            raise SystemExit(f"{method_name}: the loss of step {step} is not finite; try a smaller --learning_rates")
        if step % 100 == 0:
            print(f"{method_name}, seed {arguments.seed}: step {step}, loss {sum(found[-100:]) / 100:.3f}", flush=True)
    cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - processor_started}
    size = {"steps": steps, "images_seen": steps * batch_size, "batch_size": batch_size, "hardware": hardware()}
    return backbone, {"method": method_name, "learning_rate": learning_rate, "loss": found[-1], **size, **cost}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--methods", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learning_rates", type=float, nargs="+", help="A sweep; default: the chosen rate of each.")
    parser.add_argument("--dataset", help="Default: the recipe's.")
    parser.add_argument("--steps", type=int, help="Default: the recipe's.")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    import lightly
    import torch

    from ladder_training.config.recipe import read_recipe, resolve
    from ladder_training.files import folder_written_at_once
    from ladder_training.models.processor import image_processor

    torch.set_num_threads(1)
    changes: dict[str, Any] = {"method": "byol", "monitor_steps": 0}
    changes |= {"dataset": arguments.dataset} if arguments.dataset else {}
    changes |= {"max_steps": arguments.steps} if arguments.steps else {}
    for seed, name in itertools.product(arguments.seeds, arguments.methods):
        for rate in arguments.learning_rates or [None]:
            folder = arguments.output / (name if rate is None else f"{name}-{rate:g}") / f"seed-{seed}"
            if (folder / "run.json").is_file():
                continue
            recipe = resolve(read_recipe(arguments.recipe), {**changes, "seed": seed, "output": str(folder)})
            backbone, said = train(name, recipe, RATES[name] if rate is None else rate)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder_written_at_once(folder) as temporary:
                backbone.save_pretrained(temporary)
                views = recipe.views
                processor = image_processor(views.image_size, tuple(views.image_mean), tuple(views.image_std))
                processor.save_pretrained(temporary)
                said |= {"lightly": lightly.__version__}
                (temporary / "run.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
