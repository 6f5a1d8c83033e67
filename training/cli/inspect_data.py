"""`ladder inspect`: prints what is in the data, and writes the report and a contact sheet of the views."""

import re
from pathlib import Path
from typing import Any

from ..config.recipe import Recipe, read_recipe, resolve
from ..errors import UserError
from ..pretraining.build import build_model, build_views
from .options import InspectOptions


def inspect_command(options: InspectOptions) -> int:
    """Look at the data sets of the command line, or of a recipe.

    The views and the model that the input side is compared with are the recipe's, or without one the defaults.

    Args:
        options: From the command line.

    Raises:
        UserError: neither a data set nor a recipe is given, or the data cannot be used; nothing is written then.
    """
    from ..inspection.data import inspect_data
    from ..inspection.report import print_report
    from ..models.devices import choose_device

    recipe = Recipe("inspect", "", {}, "defaults") if options.recipe is None else read_recipe(options.recipe)
    resolved = resolve(recipe, {"image_size": options.image_size} if options.image_size is not None else {})
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
        image_column=options.image_column,
        transform=build_views(resolved),
        limit=options.limit,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        model=build_model(resolved).to(choose_device(None)),
        autocast=_mixed_precision(resolved.arguments),
    )
    print_report(result)
    return 0


def _mixed_precision(arguments: dict[str, Any]) -> Any:
    """The torch type of a recipe's mixed precision; None for none."""
    import torch

    if arguments.get("bf16"):
        return torch.bfloat16
    return torch.float16 if arguments.get("fp16") else None
