"""`ladder pretrain --dataset D` without a recipe: plan the run, print the plan, and continue it when called again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.fields import read_words
from ..config.recipe import Recipe, ResolvedRecipe, all_fields, read_recipe, resolve
from ..errors import UserError
from ..runs.record import RunRecord
from ..trainer.best import looks_at_images
from .build import build_model, build_views, monitoring_split, network_config
from .facts import measure_images, measure_machine, measure_network, measure_speed
from .plan_text import plan_table, recipe_text
from .planner import PLAN, RECIPE_FILE, Plan, heads, make_plan, table_name


@dataclass(frozen=True)
class PlannedRun:
    """A run that was planned now or before.

    Attributes:
        recipe: What is to be trained.
        text: What to print before it starts.
    """

    recipe: ResolvedRecipe
    text: str


def planned_run(words: Mapping[str, list[str]]) -> PlannedRun:
    """Plan a run, or find the plan in its output folder and apply the changes of the command line to it.

    Args:
        words: Field of a recipe -> the words typed after it.

    Raises:
        UserError: no data set is given, it cannot be read, or a value is wrong. Nothing was written.
    """
    known = all_fields()
    given = {name: read_words(typed, known[name], name) for name, typed in words.items()}
    names = given.get("dataset")
    names = [names] if isinstance(names, str) else names
    if not names:
        raise UserError("pretrain needs images: give --dataset FOLDER (or a recipe: `ladder pretrain --help`)")
    folder = Path(given.get("output") or default_folder(names)).expanduser()
    given["output"] = str(folder)
    earlier = earlier_plan(folder)
    if earlier is not None:
        recipe = resolve(earlier, {**words, "output": str(folder)})
        return PlannedRun(recipe, f"{folder} holds a plan already, which is continued ({earlier.where})")
    plan = _plan(names, given)
    recipe = resolve(Recipe(PLAN, recipe_text(plan), plan.values, "the plan"))
    return PlannedRun(recipe, f"{plan_table(plan, _speed(recipe, plan))}\nthe plan as a recipe: {folder / RECIPE_FILE}")


def default_folder(names: list[str]) -> str:
    """Return the output folder of a planned run, named by its data sets."""
    parts = (re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.") for name in names)
    return "runs/" + ("-".join(part for part in parts if part) or PLAN)


def earlier_plan(folder: Path) -> Recipe | None:
    """Read the plan of a run's folder: its recipe.yaml or, if that is lost, the text in run.json.

    Raises:
        UserError: recipe.yaml cannot be read, or holds no recipe.
    """
    record = RunRecord.read(folder)
    if record is None or record.recipe.name != PLAN:
        return None
    path = folder / RECIPE_FILE
    if path.is_file():
        recipe = read_recipe(path)
        return Recipe(PLAN, recipe.text, recipe.values, str(path))
    return Recipe(PLAN, record.recipe.text or "", dict(record.recipe.values), f"{folder}/run.json")


def _plan(names: list[str], given: dict[str, Any]) -> Plan:
    """Measure what the plan depends on, and make it."""
    settings: dict[str, Any] = {"split": given.get("split") or "train", "streaming": bool(given.get("streaming"))}
    settings |= {"trust_paths": bool(given.get("trust_paths")), "only_if_there": len(names) > 1}
    run = resolve(Recipe(PLAN, "", given, "the plan"))
    images = measure_images(
        names,
        monitored=looks_at_images(run.arguments)
        and monitoring_split(run.data, names[0], given.get("revision")) is None,
        exactly=given.get("num_train_epochs") is not None,
        revision=given.get("revision"),
        image_column=given.get("image_column"),
        **settings,
    )
    if images.trained is not None and images.trained < 2:
        raise UserError(f"{images.name}: {images.trained} image is too few to train on: add images, a step needs two")
    machine = measure_machine()
    costs = None
    own = given.get("from_model") or given.get("backbone_config")
    if own is not None or (given.get("backbone") is not None and table_name(given["backbone"]) is None):
        size = int(given.get("image_size") or 224)
        typed = resolve(Recipe(PLAN, "", {**heads(None), **given}, "the plan"))
        config = build_model(typed).config if given.get("from_model") else network_config(typed)
        costs = measure_network(config, size)
    return make_plan(images, machine, given if len(names) == 1 else {**given, "dataset": names}, costs)


def _speed(recipe: ResolvedRecipe, plan: Plan) -> float | None:
    """Measure the speed of the planned run on this machine; None on several GPUs, which one process cannot measure."""
    if len(plan.machine.gpus) > 1:
        return None
    import torch

    from ..data.sources import load_image_stream
    from ..models.devices import choose_device

    names = recipe.data.dataset
    first = names if isinstance(names, str) else (names or [""])[0]
    data = recipe.data
    dataset = load_image_stream(
        first,
        split=data.split,
        streaming=data.streaming,
        revision=data.revision,
        image_column=data.image_column,
        only_if_there=True,
        trust_paths=data.trust_paths,
    )
    model = build_model(recipe).to(choose_device("cpu" if recipe.arguments.get("use_cpu") else None))
    batch, workers = recipe.arguments["per_device_train_batch_size"], recipe.arguments["dataloader_num_workers"]
    autocast = torch.bfloat16 if recipe.arguments.get("bf16") else None
    return measure_speed(dataset, model, build_views(recipe), batch, workers, autocast)
