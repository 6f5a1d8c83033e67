"""Cells: small JSON files, one per method, seed and task, with what was measured and all that it depends on.

They are meant for git: no path of a machine is in them, and another machine goes on from those that are there.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_text
from ..runs.run_folder import now, versions
from .fingerprints import differing_field, plain

PRETRAIN, GRADIENTS = "pretrain", "gradients"
DONE, COLLAPSED, STOPPED = "finished", "collapsed", "stopped"


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
