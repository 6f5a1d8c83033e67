"""Recipes: flat YAML files whose fields are our own options and those of transformers' TrainingArguments."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from .fields import check_value, check_values, fields_of, in_range, read_words, unknown_name
from .inherited import RANGES
from .options import DataOptions, ModelOptions, RunOptions, TrainingOptions, ViewOptions
from .ranges import ANY
from .values import read_mapping

RECIPE_FOLDER = Path(__file__).parents[1] / "recipes"
OWN_GROUPS: Mapping[str, type] = {
    "images": DataOptions,
    "network and levels": ModelOptions,
    "views": ViewOptions,
    "training": TrainingOptions,
    "run": RunOptions,
}
LEVEL_FIELDS = ("level_names", "level_losses", "level_weights")
# Other names of fields, in recipes and on the command line: alias -> field.
ALIASES: Mapping[str, str] = {
    "from": "from_model",
    "output_dir": "output",
    "data": "dataset",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "workers": "dataloader_num_workers",
    "model": "backbone",
}


@dataclass(frozen=True)
class Recipe:
    """A recipe as its author wrote it.

    Attributes:
        name: The file's name without its ending.
        text: The whole file.
        values: Field name -> value, as parsed.
        where: The start of error messages: "recipe" and the file's path.
    """

    name: str
    text: str
    values: dict[str, Any]
    where: str


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with the changes of the command line, checked and grouped by purpose.

    Attributes:
        name: As in `Recipe`.
        text: As in `Recipe`.
        values: Every field that was set, by the recipe or the command line: name -> value.
        data: Where the images come from.
        model: The network and its levels.
        views: How the two views are made.
        run: Where the run is written, and what its card says.
        arguments: Keyword arguments of `LadderTrainingArguments`: its own fields and those it inherits.
    """

    name: str
    text: str
    values: dict[str, Any]
    data: DataOptions
    model: ModelOptions
    views: ViewOptions
    run: RunOptions
    arguments: dict[str, Any] = field(default_factory=dict)


def packaged_recipes(folder: Path = RECIPE_FOLDER) -> list[str]:
    """Names of the recipes that come with the package; default: those for pretraining."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_recipe(name_or_path: str | Path, folder: Path = RECIPE_FOLDER) -> Recipe:
    """Read a recipe from a file, or by the name of one that comes with the package.

    Args:
        name_or_path: A YAML file, or the name of a packaged recipe.
        folder: Where the packaged recipes of this kind lie.

    Raises:
        UserError: there is no such recipe, or it is no flat YAML mapping.
    """
    path = _find(str(name_or_path), folder)
    values, text = read_mapping(path, "recipe")
    return Recipe(path.stem, text, values, f"recipe {path}")


def own_fields() -> dict[str, tuple[Any, Field[Any]]]:
    """List our own fields: name -> (type, dataclass field). Imports nothing heavy."""
    return {name: declared for group in OWN_GROUPS.values() for name, declared in fields_of(group).items()}


def inherited_fields() -> dict[str, tuple[Any, Field[Any]]]:
    """List the fields of transformers' TrainingArguments: name -> (type, dataclass field). Imports transformers."""
    from .arguments import LadderTrainingArguments

    own = own_fields()
    declared = fields_of(LadderTrainingArguments)
    return {
        name: (kind, in_range(item, RANGES.get(name, ANY)))
        for name, (kind, item) in declared.items()
        if item.init and name not in own
    }


def all_fields() -> dict[str, tuple[Any, Field[Any]]]:
    """List every field that a recipe may hold. Imports transformers."""
    return {**inherited_fields(), **own_fields()}


def resolve(recipe: Recipe, overrides: Mapping[str, Any] | None = None) -> ResolvedRecipe:
    """Apply the command line's changes to a recipe, and check every name and type.

    Args:
        recipe: From `read_recipe`.
        overrides: Field -> the value that replaces the recipe's. A list holds the words typed after an option.

    Raises:
        UserError: a field does not exist (the nearest one is suggested), or a value has the wrong type.
    """
    known = all_fields()
    values = check_values(recipe.values, known, f"{recipe.where}: ", aliases=ALIASES)
    for one, other in (("backbone", "backbone_config"), ("backbone_config", "backbone")):
        if one in (overrides or {}):
            values.pop(other, None)  # the network that was typed replaces the recipe's
    for name, value in (overrides or {}).items():
        values[name] = (read_words if isinstance(value, list) else check_value)(value, known[name], name)
    if values.get("method") not in (None, "ladder"):
        # The baselines have one global level on the last stage; the recipe's levels are those of the Ladder.
        values = {name: value for name, value in values.items() if name not in LEVEL_FIELDS}
    groups = {group: {item.name for item in fields(group)} for group in OWN_GROUPS.values()}
    parts = {
        group: group(**{name: value for name, value in values.items() if name in names and value is not None})
        for group, names in groups.items()
        if group is not TrainingOptions
    }
    elsewhere = set().union(*(names for group, names in groups.items() if group is not TrainingOptions))
    return ResolvedRecipe(
        name=recipe.name,
        text=recipe.text,
        values=values,
        data=parts[DataOptions],
        model=parts[ModelOptions],
        views=parts[ViewOptions],
        run=parts[RunOptions],
        arguments={name: value for name, value in values.items() if name not in elsewhere},
    )


def _find(name: str, folder: Path) -> Path:
    """Find the file of a recipe by its path, or by the name of a packaged one."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    packaged = folder / f"{name.removesuffix('.yaml')}.yaml"
    if path.name == name and packaged.is_file():
        return packaged
    if path.is_dir():
        raise UserError(f"recipe {name} is a folder; give a YAML file")
    names = packaged_recipes(folder)
    choice = f"give a YAML file, or one of {', '.join(names)}" if names else "give a YAML file"
    raise unknown_name(path.stem, names, f"there is no recipe {name}: {choice}")
