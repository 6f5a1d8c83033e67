"""How much of the gradient of each stage's weights comes from the loss of each level.

For a level l with weight w_l and a stage s: the norm of the gradient of w_l * loss_l with respect to the weights of s
in the backbone, meaned over batches; a level's share is its norm divided by the sum over levels. (Norms, not squares:
the levels' gradients are not orthogonal, so shares say who pushes how hard, not how the sum divides.) Beside it, the
cosine between the gradients of a level and of all levels together.
"""

import copy
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config.recipe import ResolvedRecipe
from ..loading.loader import ViewLoader
from ..pretraining.build import build_model, build_views, load_data
from ..runs.run_folder import PRETRAINING

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseForPreTraining

BATCHES = 4
IMAGES = 64
"""Images per batch, less where the recipe's own batches are smaller."""
SEED = 2_000_003
"""Of the order and the views; no run's seed, so that the batches are none that training began with."""
_BLOCK = re.compile(r"(?:^|\.)(?:stages|layers|layer|blocks)\.(\d+)\.")


def gradient_shares(recipe: ResolvedRecipe, folder: Path) -> dict[str, Any]:
    """Shares at the start and at the end of a finished run, on the same views.

    Args:
        recipe: Of the run.
        folder: Of the run, with `pretraining/`.

    Returns:
        {"start": ..., "end": ...}, each as `shares` gives it.
    """
    from transformers import set_seed

    from modeling_ladder import LadderSiameseForPreTraining

    batches = view_batches(recipe)
    set_seed(int(recipe.values["seed"]))
    start = shares(build_model(recipe), batches)
    end = shares(LadderSiameseForPreTraining.from_pretrained(folder / PRETRAINING), batches)
    return {"status": "finished", "start": start, "end": end}


def view_batches(recipe: ResolvedRecipe, count: int = BATCHES) -> list[dict[str, Tensor]]:
    """A few batches of views of the recipe's images, the same at every call."""
    data, views = load_data(recipe), build_views(recipe)
    size = min(IMAGES, int(recipe.arguments.get("per_device_train_batch_size") or IMAGES))
    loader = ViewLoader(data.train, views, batch_size=size, seed=SEED, image_column=recipe.data.image_column)
    batches = [dict(batch) for batch in itertools.islice(iter(loader), count)]
    if recipe.views.device_views:
        from ..views.device import DeviceViews

        batches = [DeviceViews(views)(batch) for batch in batches]
    return batches


def shares(model: "LadderSiameseForPreTraining", batches: Iterable[dict[str, Tensor]]) -> dict[str, Any]:
    """Gradient norms per stage and level, in train mode, of a copy: the model stays as it is.

    Args:
        model: With one level or more of a weight above 0.
        batches: Each {"pixel_values", "view_boxes", "view_flips"}, as the model's forward takes them.

    Returns:
        "norm": stage to level to the mean norm of the weighted gradient; "share": the same divided by its sum over
        levels; "cosine": stage to level to the mean cosine with the gradient of all levels together.
    """
    model = copy.deepcopy(model).train()
    groups = parameters_by_stage(model.backbone, model.backbone.config.stage_names)
    levels = [level for level in model.config.levels if level[2] > 0]
    sums: dict[str, dict[str, list[float]]] = {stage: {} for stage in groups}
    cosines: dict[str, dict[str, list[float]]] = {stage: {} for stage in groups}
    whole = model.config
    for batch in batches:
        inputs = {name: batch[name] for name in ("pixel_values", "view_boxes", "view_flips") if name in batch}
        by_level = {}
        for stage, kind, weight in levels:
            # The same network with one level only: its loss is that level's weighted loss.
            model.config = copy.copy(whole)
            model.config.level_names, model.config.level_losses, model.config.level_weights = [stage], [kind], [weight]
            loss = model(**inputs).loss
            by_level[f"{stage}.{kind}"] = gradient_by_stage(loss, groups)
        model.config = whole
        for stage in groups:
            together = torch.stack([vectors[stage] for vectors in by_level.values()]).sum(0)
            for level, vectors in by_level.items():
                sums[stage].setdefault(level, []).append(vectors[stage].norm().item())
                cosine = torch.nn.functional.cosine_similarity(vectors[stage], together, dim=0)
                cosines[stage].setdefault(level, []).append(cosine.item())
    norm = {stage: {level: _mean(values) for level, values in row.items()} for stage, row in sums.items()}
    share = {
        stage: {level: value / max(sum(row.values()), 1e-30) for level, value in row.items()}
        for stage, row in norm.items()
    }
    cosine = {stage: {level: _mean(values) for level, values in row.items()} for stage, row in cosines.items()}
    return {"norm": norm, "share": share, "cosine": cosine}


def parameters_by_stage(backbone: nn.Module, stage_names: list[str]) -> dict[str, list[nn.Parameter]]:
    """A backbone's trainable parameters by the stage they lie in; what lies in no numbered block is the "stem".

    Args:
        backbone: A transformers backbone, whose blocks are numbered in `stages`, `layers` or `layer`.
        stage_names: Of its config, the stem first.
    """
    names = [name for name in stage_names if name != "stem"]
    groups: dict[str, list[nn.Parameter]] = {"stem": [], **{name: [] for name in names}}
    for name, parameter in backbone.named_parameters():
        if not parameter.requires_grad:
            continue
        block = _BLOCK.search(name)
        groups[names[int(block.group(1))] if block else "stem"].append(parameter)
    return {name: group for name, group in groups.items() if group}


def gradient_by_stage(loss: Tensor, groups: dict[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """The gradient of each group as one vector; zero where the loss does not reach."""
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    found = iter(
        torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    )
    return {stage: torch.cat(list(itertools.islice(found, len(group)))) for stage, group in groups.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
