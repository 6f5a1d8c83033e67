"""`ladder inspect`: prints what a data set holds, and writes the report and a contact sheet of the views."""

import re
from pathlib import Path
from typing import Any

from ..config.recipe import Recipe, read_recipe, resolve
from ..config.shell import ladder_command
from ..errors import UserError
from ..pretraining.build import build_model, build_views
from .options import InspectOptions


def inspect_command(options: InspectOptions) -> int:
    """Inspect the data sets of the command line, or of a recipe.

    Views, and the model whose speed the reading of images is compared with, are the recipe's; without a recipe, the
    defaults.

    Args:
        options: From the command line.

    Returns:
        The exit code 0.

    Raises:
        UserError: neither a data set nor a recipe is given, or the data cannot be used. Then nothing is written.
    """
    from ..inspection.data import inspect_data
    from ..inspection.report import print_report
    from ..models.devices import choose_device

    recipe = Recipe("inspect", "", {}, "defaults") if options.recipe is None else read_recipe(options.recipe)
    changed: dict[str, Any] = {} if options.image_size is None else {"image_size": options.image_size}
    resolved = resolve(recipe, changed)
    if options.image_range is not None:
        resolved.data.image_range = options.image_range
    named = resolved.data.dataset
    names = options.dataset or ([named] if isinstance(named, str) else named)
    if not names:
        raise UserError("no data set: give --dataset, or --recipe with one")
    output = options.output or "runs/inspect-" + re.sub(r"[^\w.-]+", "-", Path(names[0]).name).strip("-")
    result = inspect_data(
        names,
        output=output,
        split=options.split,
        streaming=options.streaming,
        revision=options.revision,
        image_column=options.image_column or resolved.data.image_column,
        trust_paths=options.trust_paths or resolved.data.trust_paths,
        transform=build_views(resolved),
        limit=options.limit,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        model=build_model(resolved).to(choose_device(None)),
        autocast=_mixed_precision(resolved.arguments),
    )
    print_report(result)
    kept = ("streaming", "revision", "image_column", "image_range", "trust_paths", "image_size")
    same = {name: getattr(options, name) for name in kept}
    split = None if options.split == "train" else options.split
    recipes = [options.recipe] if options.recipe else []
    print(f"next: {ladder_command('pretrain', *recipes, dataset=names, split=split, **same)}")
    return 0


def _mixed_precision(arguments: dict[str, Any]) -> Any:
    """Return the torch type of a recipe's mixed precision, or None."""
    import torch

    if arguments.get("bf16"):
        return torch.bfloat16
    return torch.float16 if arguments.get("fp16") else None
