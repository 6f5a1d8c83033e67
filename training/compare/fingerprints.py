"""Fingerprints: everything that decides a run's weights or an evaluation's result, in a form that can be compared."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.fields import default_of
from ..config.options import TrainingOptions
from ..config.recipe import ResolvedRecipe, own_fields
from ..files import json_value, looks_like_path
from ..pretraining.build import network_config
from ..runs.run_folder import FREE_FIELDS
from .contents import COMMIT, CONTENT, Contents

DATA_FIELDS = ("dataset", "eval_dataset", "from_model")
_GLOBAL_FIELDS = ("level_names", "level_losses", "level_weights", "projection_hidden_size", "projection_size", "target")
_LOWER_FIELD = "lower_projection_hidden_size"
_LOCAL_FIELDS = ("local_projection_hidden_size", "local_matching", "local_grid_size")
_UNTRAINED_FIELDS = (
    *("trained", "seed", "backbone_config", "image_size", "image_mean", "image_std"),
    *("from_model", "from_model" + CONTENT),
)
_DIGITS = 6


def run_fingerprint(recipe: ResolvedRecipe, contents: Contents, trained: bool = True) -> dict[str, Any]:
    """Collect everything that decides a run's weights: the fields that were set, our defaults, and the levels.

    Of a path only the name at its end is kept, and what the data set or the weights hold. Fields that do not change the
    weights (logging, saving, number of workers) are left out.

    Args:
        recipe: Of the run.
        contents: Of the data sets and the weights to start from.
        trained: False for the untrained network, whose weights depend on fewer fields.
    """
    fields = {**asdict(TrainingOptions()), **asdict(recipe.views), **recipe.values}
    if recipe.model.from_model is None:
        config = network_config(recipe)
        kinds = {kind for _, kind, _ in config.levels}
        names = _GLOBAL_FIELDS + (_LOCAL_FIELDS if kinds & {"local", "region"} else ())
        for name in (*_LOCAL_FIELDS, *(["base_momentum"] if config.target == "stop_gradient" else [])):
            fields.pop(name, None)
        fields.pop(_LOWER_FIELD, None)
        widths = {config.hidden_size(stage, kind) for stage, kind, _ in config.levels if kind == "global"}
        names += (_LOWER_FIELD,) if widths - {config.projection_hidden_size} else ()
        names += ("base_momentum",) if config.target == "ema" else ()
        fields |= {name: getattr(config, name) for name in names}
    for name in DATA_FIELDS:
        fields[name] = data_name(fields.get(name))
    fields |= contents.of_recipe(recipe)
    fields["trained"] = trained
    if not trained:
        fields = {name: value for name, value in fields.items() if name in _UNTRAINED_FIELDS}
    return cell_value({name: value for name, value in sorted(fields.items()) if name not in FREE_FIELDS})


def run_defaults() -> dict[str, Any]:
    """Return the defaults of our own fields, for cells that were written before a field existed."""
    return {name: default_of(item) for name, (_, item) in own_fields().items()}


def differing_field(saved: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """Return the first field in which two fingerprints differ, or None.

    A field that the saved fingerprint does not have yet counts as equal if its value is the default. A content or a
    commit that one of them does not know counts as equal: older cells have none, and where the data is gone or the Hub
    does not answer it cannot be found out. Of data and weights whose contents are equal the names may differ, and of
    equal commits the revisions.

    Args:
        saved: Read from a cell.
        wanted: Of the same work now.
        defaults: Default values of fields.
    """
    wanted, defaults = cell_value(wanted), cell_value(defaults)
    for name in dict.fromkeys([*wanted, *saved]):
        if saved.get(name) == wanted.get(name):
            continue
        if name not in saved and name in defaults and wanted[name] == defaults[name]:
            continue
        if name.endswith((CONTENT, COMMIT)) and None in (saved.get(name), wanted.get(name)):
            continue
        content = saved.get(name + CONTENT)
        if content is not None and content == wanted.get(name + CONTENT):
            continue
        commit = saved.get("dataset" + COMMIT)
        if name == "revision" and commit is not None and commit == wanted.get("dataset" + COMMIT):
            continue
        return name
    return None


def cell_value(value: Any) -> Any:
    """Convert a value to what a cell gives back when it is read: strict JSON with numbers of six digits."""
    return json_value(value, lambda number: float(f"{number:.{_DIGITS}g}"))


def is_local(reference: str) -> bool:
    """Tell whether a data set or model lies on this machine: it exists here, or its name can only be a path."""
    return looks_like_path(reference) or Path(reference).expanduser().exists()


def data_name(reference: str | list[str] | None) -> Any:
    """Return a data set's name without the path of this machine: the last part of a path, without its ending."""
    if reference is None or isinstance(reference, list):
        return reference and [data_name(entry) for entry in reference]
    if not is_local(reference):
        return reference
    path = Path(reference).expanduser()
    return (path.resolve() if path.name in ("", ".", "..") else path).stem
