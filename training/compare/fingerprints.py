"""What decides a run's weights or an evaluation's figures, as plain values that two runs can be compared by."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.fields import default_of
from ..config.options import TrainingOptions
from ..config.recipe import ResolvedRecipe, own_fields
from ..files import looks_like_path
from ..pretraining.build import network_config
from ..runs.run_folder import FREE_FIELDS

DATA_FIELDS = ("dataset", "eval_dataset", "from_model")


_GLOBAL_FIELDS = ("level_names", "level_losses", "level_weights", "projection_hidden_size", "projection_size", "target")


_LOWER_FIELD = "lower_projection_hidden_size"


_LOCAL_FIELDS = ("local_projection_hidden_size", "local_matching", "local_grid_size")


_UNTRAINED_FIELDS = ("trained", "seed", "backbone_config", "from_model", "image_size", "image_mean", "image_std")


_DIGITS = 6


def run_fingerprint(recipe: ResolvedRecipe, trained: bool = True) -> dict[str, Any]:
    """All that decides a run's weights: every set field, the defaults of ours, and the levels as they come out.

    Paths are reduced to the names of what they lead to. Fields that change no weight (logging, saving, number of
    workers) are left out.
    """
    fields = {**asdict(TrainingOptions()), **asdict(recipe.views), **recipe.values}
    if recipe.model.from_model is None:
        config = network_config(recipe)
        kinds = {kind for _, kind, _ in config.levels}
        names = _GLOBAL_FIELDS + (_LOCAL_FIELDS if "local" in kinds else ())
        for name in (*_LOCAL_FIELDS, *(["base_momentum"] if config.target == "stop_gradient" else [])):
            fields.pop(name, None)
        fields.pop(_LOWER_FIELD, None)
        widths = {config.hidden_size(stage, kind) for stage, kind, _ in config.levels if kind == "global"}
        names += (_LOWER_FIELD,) if widths - {config.projection_hidden_size} else ()
        names += ("base_momentum",) if config.target == "ema" else ()
        fields |= {name: getattr(config, name) for name in names}
    for name in DATA_FIELDS:
        fields[name] = data_name(fields.get(name))
    fields["trained"] = trained
    if not trained:
        fields = {name: value for name, value in fields.items() if name in _UNTRAINED_FIELDS}
    return plain({name: value for name, value in sorted(fields.items()) if name not in FREE_FIELDS})


def run_defaults() -> dict[str, Any]:
    """Our own fields' defaults, for cells that are older than a field."""
    return {name: default_of(item) for name, (_, item) in own_fields().items()}


def differing_field(saved: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]) -> str | None:
    """The first field in which two fingerprints differ, or None.

    A field that the saved one does not have is no difference where its value is the default: it is younger.
    """
    wanted, defaults = plain(wanted), plain(defaults)
    for name in dict.fromkeys([*wanted, *saved]):
        if saved.get(name) == wanted.get(name):
            continue
        if name not in saved and name in defaults and wanted[name] == defaults[name]:
            continue
        return name
    return None


def plain(value: Any) -> Any:
    """A value as JSON gives it back: no tuples, no enums, no NaN; numbers of the log with six digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        finite = value == value and abs(value) != float("inf")
        return float(f"{value:.{_DIGITS}g}") if finite else None
    return value if isinstance(value, str | int | bool | type(None)) else str(value)


def data_name(reference: str | list[str] | None) -> Any:
    """A data set's name as every machine knows it: of a path, the last part."""
    if reference is None or isinstance(reference, list):
        return reference and [data_name(entry) for entry in reference]
    path = Path(reference).expanduser()
    if not looks_like_path(reference) and not path.exists():
        return reference
    return (path.resolve() if path.name in ("", ".", "..") else path).stem
