"""Cells: small JSON files, one per method, seed and task, with what was measured and all that it depends on.

They are meant for git: no path of a machine is in them, and another machine goes on from those that are there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..build import network_config
from ..errors import UserError
from ..fields import default_of
from ..files import write_text
from ..options import TrainingOptions
from ..recipe import ResolvedRecipe, own_fields
from ..run_folder import FREE_FIELDS, now, versions
from .evaluations import data_name

PRETRAIN, GRADIENTS = "pretrain", "gradients"
DONE, COLLAPSED, STOPPED = "finished", "collapsed", "stopped"
DATA_FIELDS = ("dataset", "eval_dataset", "from_model")
_GLOBAL_FIELDS = ("level_names", "level_losses", "level_weights", "projection_hidden_size", "projection_size", "target")
_LOWER_FIELD = "lower_projection_hidden_size"
_LOCAL_FIELDS = ("local_projection_hidden_size", "local_matching", "local_grid_size")
_UNTRAINED_FIELDS = ("trained", "seed", "backbone_config", "from_model", "image_size", "image_mean", "image_std")
_DIGITS = 6


class Cells:
    """The cells of a comparison.

    Args:
        folder: Of the comparison.
        redo: Take a cell that other settings made as missing, instead of stopping there.
    """

    def __init__(self, folder: Path, redo: bool = False) -> None:
        self.folder, self.redo = folder / "cells", redo

    def path(self, method: str, seed: int, name: str) -> Path:
        """Where a cell lies."""
        return self.folder / method / f"seed-{seed}" / f"{name}.json"

    def read(
        self,
        method: str,
        seed: int,
        name: str,
        fingerprint: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """A finished cell, or None where it must be made.

        Args:
            method: Its method.
            seed: Its seed.
            name: Its task and data set.
            fingerprint: What it must have been made from.
            defaults: Values that a field had before the field existed.

        Raises:
            UserError: the cell was made from something else; names the field.
        """
        path = self.path(method, seed, name)
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            saved = cell["fingerprint"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read as a cell ({error}); delete it to make it anew") from error
        differing = differing_field(saved, fingerprint, defaults or {})
        if differing is None:
            return cell
        if self.redo:
            return None
        wanted = plain(fingerprint)
        raise UserError(
            f"{path} was made with {differing} {_shown(saved.get(differing))}, now it is "
            f"{_shown(wanted.get(differing))}: choose another --output, or --redo to make it anew"
        )

    def write(self, method: str, seed: int, name: str, fingerprint: Mapping[str, Any], content: dict[str, Any]) -> None:
        """Write a finished cell, whole or not at all."""
        cell = {
            "method": method,
            "seed": seed,
            "cell": name,
            **content,
            "fingerprint": fingerprint,
            "versions": versions(),
            "date": now(),
        }
        write_compact(self.path(method, seed, name), plain(cell))


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


def write_compact(path: Path, value: Any) -> None:
    """Indented JSON in which a list of numbers or words takes one line, so that a difference is readable."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match.group()), text)
    write_text(path, text + "\n")


def scrubbed(text: str, *places: Path | str) -> str:
    """A message without the paths of this machine."""
    for place in sorted({str(place) for place in places} | {str(Path(place).resolve()) for place in places}, key=len)[
        ::-1
    ]:
        text = text.replace(place, Path(place).name)
    return text


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
