"""Cells: one small JSON file per method, seed and task, with what was measured and everything it depends on.

Cells are meant for git: they hold no path of a machine, and a comparison continues from them on any other machine.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladder_model_cards.secrets import hide_in_values

from ..errors import UserError
from ..files import write_text
from ..models.all_stages import ALL_STAGES
from ..runs.run_folder import now, versions
from .contents import COMMIT, CONTENT
from .fingerprints import cell_value, differing_field

PRETRAIN, GRADIENTS = "pretrain", "gradients"
DONE, COLLAPSED, STOPPED = "finished", "collapsed", "stopped"
CONSTANT = "constant"
DETECTION_METRICS = ("AP", "AP50", "AP75")


class Cells:
    """The cells of a comparison.

    Args:
        folder: Of the comparison.
        redo: Treat a cell that was made with other settings as missing, instead of raising an error.
    """

    def __init__(self, folder: Path, redo: bool = False) -> None:
        self.folder, self.redo = folder / "cells", redo

    def path(self, method: str, seed: int, name: str) -> Path:
        """Return the file of a cell."""
        return self.folder / method / f"seed-{seed}" / f"{name}.json"

    def read(
        self,
        method: str,
        seed: int,
        name: str,
        fingerprint: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Read a finished cell.

        Args:
            method: Name of its method.
            seed: Its seed.
            name: Name of its task and data set.
            fingerprint: The settings that it must have been made with.
            defaults: Values of fields that did not exist yet when an old cell was written.

        Returns:
            The cell's content, or None if there is no such cell.

        Raises:
            UserError: the cell was made with other settings (the message names the field), or cannot be read.
        """
        path = self.path(method, seed, name)
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            saved = cell["fingerprint"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read as a cell ({error}); delete it to compute it again") from error
        fingerprint = hide_in_values(fingerprint)
        differing = differing_field(saved, fingerprint, defaults or {})
        if differing is None:
            return cell
        if self.redo:
            return None
        wanted = cell_value(fingerprint)
        raise UserError(
            f"{path} was made with {_named(differing)} {_shown(saved.get(differing))}, now it is "
            f"{_shown(wanted.get(differing))}: choose another --output, or --redo to compute it again"
        )

    def write(self, method: str, seed: int, name: str, fingerprint: Mapping[str, Any], content: dict[str, Any]) -> None:
        """Write a finished cell. An error leaves no incomplete file behind.

        Args:
            method: Name of its method.
            seed: Its seed.
            name: Name of its task and data set.
            fingerprint: The settings that it was made with.
            content: What was measured.
        """
        cell = {
            "method": method,
            "seed": seed,
            "cell": name,
            **content,
            "fingerprint": fingerprint,
            "versions": versions(),
            "date": now(),
        }
        write_compact(self.path(method, seed, name), hide_in_values(cell_value(cell)))


def metrics_of(cell: dict[str, Any]) -> dict[str, float | None]:
    """Pick the metrics that the table shows from the cell of a finished evaluation.

    Args:
        cell: The cell's content.

    Returns:
        Metric ("accuracy stage4", "box AP", "mIoU") -> value from 0 to 1, or None if it is not defined.
    """
    metrics = cell["metrics"]
    if cell["task"] == "detection":
        kinds = [kind for kind in ("box", "mask") if kind in metrics]
        return {f"{kind} {name}": metrics[kind].get(name) for kind in kinds for name in DETECTION_METRICS}
    if cell["task"] == "segmentation":
        head = next(name for name in metrics if name != CONSTANT)
        return {"mIoU": metrics[head]["mean_iou"], "pixel accuracy": metrics[head]["pixel_accuracy"]}
    return {f"accuracy {name}": row["accuracy"] for name, row in metrics.items()}


def headline_metric(metrics: list[str]) -> str:
    """Choose the metric that stands for an evaluation.

    If there is one value per stage, it is that of the last stage: choosing the best one would need the scored images.
    Otherwise it is the first metric, box AP or mIoU.

    Args:
        metrics: Names as returned by `metrics_of`.
    """
    stages = [name for name in metrics if name.startswith("accuracy ") and name != f"accuracy {ALL_STAGES}"]
    return stages[-1] if stages else metrics[0]


def write_compact(path: Path, value: Any) -> None:
    """Write indented JSON with each list of numbers or words on one line, so that `git diff` stays readable."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match.group()), text)
    write_text(path, text + "\n")


def scrubbed(text: str, *paths: Path | str) -> str:
    """Replace paths of this machine in a message by the names of the files or folders.

    Args:
        text: The message.
        *paths: The paths that may occur in it.
    """
    spellings = {str(path) for path in paths} | {str(Path(path).resolve()) for path in paths}
    # The longest first: a path may start with another one.
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, Path(spelling).name)
    return text


def _named(field: str) -> str:
    """Name a field of a fingerprint in an error message."""
    if field.endswith(COMMIT):
        return f"a {field.removesuffix(COMMIT)} at commit"
    return f"a {field.removesuffix(CONTENT)} of" if field.endswith(CONTENT) else field


def _shown(value: Any) -> str:
    """Show a value in an error message, cut to 60 characters."""
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
