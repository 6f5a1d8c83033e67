"""How much of the gradient of each stage's weights comes from the loss of each level.

For a level l with weight w_l and a stage s, this is the norm of the gradient of w_l * loss_l with respect to the
backbone's weights in s, averaged over batches. A level's share is its norm divided by the sum of norms over levels.
(Norms, not squares: the gradients of the levels are not orthogonal, so a share says how strongly a level pulls, not
which part of the sum it makes up.) The cosine between the gradient of a level and that of all levels is given too.
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
from ..models.devices import choose_device
from ..pretraining.build import build_model, build_views, load_data
from ..runs.run_folder import PRETRAINING

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseForPreTraining

BATCHES = 4
IMAGES = 64
"""Images per batch, or fewer if the recipe's own batches are smaller."""
SEED = 2_000_003
"""Seed of the order and the views. No run has it, so the batches differ from the first ones of training."""
_BLOCK = re.compile(r"(?:^|\.)(?:stages|layers|layer|blocks)\.(\d+)\.")


def gradient_shares(recipe: ResolvedRecipe, folder: Path) -> dict[str, Any]:
    """Measure the shares at the start and at the end of a finished run, on the same views.

    Args:
        recipe: Of the run.
        folder: Of the run; it holds `pretraining/`.

    Returns:
        {"status": "finished", "start": ..., "end": ...}, the last two as returned by `shares`.
    """
    from transformers import set_seed

    from modeling_ladder import LadderSiameseForPreTraining

    device = torch.device("cpu") if recipe.arguments.get("use_cpu") else choose_device(None)
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in view_batches(recipe)]
    set_seed(int(recipe.values["seed"]))
    start = shares(build_model(recipe).to(device), batches)
    end = shares(LadderSiameseForPreTraining.from_pretrained(folder / PRETRAINING).to(device), batches)
    return {"status": "finished", "start": start, "end": end}


def view_batches(recipe: ResolvedRecipe, count: int = BATCHES) -> list[dict[str, Tensor]]:
    """Make a few batches of views of the recipe's images; every call returns the same ones.

    Args:
        recipe: Of the run.
        count: Number of batches.
    """
    data, views = load_data(recipe), build_views(recipe)
    size = min(IMAGES, int(recipe.arguments.get("per_device_train_batch_size") or IMAGES))
    loader = ViewLoader(data.train, views, batch_size=size, seed=SEED, image_column=recipe.data.image_column)
    batches = [dict(batch) for batch in itertools.islice(iter(loader), count)]
    if recipe.views.device_views:
        from ..views.device import DeviceViews

        batches = [DeviceViews(views)(batch) for batch in batches]
    return batches


def shares(model: "LadderSiameseForPreTraining", batches: Iterable[dict[str, Tensor]]) -> dict[str, Any]:
    """Measure gradient norms per stage and level, in train mode, on a copy of the model.

    Args:
        model: With one level or more of a weight above 0.
        batches: Dictionaries with the arguments of the model's forward: "pixel_values", "view_boxes", "view_flips".

    Returns:
        Three dictionaries, stage -> level -> number: "norm", the average norm of the weighted gradient; "share", the
        same divided by its sum over levels; "cosine", the average cosine with the gradient of all levels together.
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
            # With a single level, the loss of the network is that level's weighted loss.
            model.config = copy.copy(whole)
            model.config.level_names, model.config.level_losses, model.config.level_weights = [stage], [kind], [weight]
            loss = model(**inputs).loss
            by_level[f"{stage}.{kind}"] = gradient_by_stage(loss, groups)
        model.config = whole
        for stage in groups:
            together = torch.stack([vectors[stage] for vectors in by_level.values()]).sum(0)
            for level, vectors in by_level.items():
                sums[stage].setdefault(level, []).append(vectors[stage].norm().item())
                alignment = torch.nn.functional.cosine_similarity(vectors[stage], together, dim=0)
                cosines[stage].setdefault(level, []).append(alignment.item())
    norm = {stage: {level: _mean(values) for level, values in row.items()} for stage, row in sums.items()}
    share = {
        stage: {level: value / max(sum(row.values()), 1e-30) for level, value in row.items()}
        for stage, row in norm.items()
    }
    cosine = {stage: {level: _mean(values) for level, values in row.items()} for stage, row in cosines.items()}
    return {"norm": norm, "share": share, "cosine": cosine}


def parameters_by_stage(backbone: nn.Module, stage_names: list[str]) -> dict[str, list[nn.Parameter]]:
    """Group a backbone's trainable parameters by stage. Those outside the numbered blocks belong to the "stem".

    Args:
        backbone: A transformers backbone whose blocks are numbered in `stages`, `layers`, `layer` or `blocks`.
        stage_names: From its config, the stem first.
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
    """Return the gradient of each group as one vector, with zeros for parameters that the loss does not depend on."""
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = iter(
        torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    )
    return {stage: torch.cat(list(itertools.islice(flat, len(group)))) for stage, group in groups.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
