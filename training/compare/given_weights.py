"""Columns of the table that this package did not train: the weights are given, and only scored."""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_record
from ..models.weight_files import hash_of_files, weight_files
from ..runs.record import IMPORTED
from ..runs.run_folder import hardware
from .cells import DONE

WEIGHTS = "weights"
SEED = "{seed}"
# What a folder may say of its training in `run.json`; what it does not say is missing in the table.
NUMBERS = ("steps", "images_seen", "batch_size", "seconds", "cpu_seconds")


def given_folder(template: str, seed: int) -> Path:
    """Return the folder of one seed; `{seed}` in the template stands for its number."""
    return Path(template.replace(SEED, str(seed))).expanduser()


def given_fingerprint(folder: Path, cell: Path, seed: int) -> dict[str, Any]:
    """Return what tells these weights from others: a hash of their file, or what the cell says where they are gone.

    Args:
        folder: Of the weights.
        cell: File of the pretraining cell, which need not exist.
        seed: Of the weights.

    Raises:
        UserError: there is neither a folder with weights nor a cell of them.
    """
    found = weight_files(folder)
    if found:
        return {WEIGHTS: hash_of_files(found), "seed": seed}
    if cell.is_file():
        saved: dict[str, Any] = json.loads(cell.read_text(encoding="utf-8"))["fingerprint"]
        return saved
    raise UserError(f"{folder} holds no model.safetensors: train seed {seed} first, or leave it out of --seeds")


def given_cell(folder: Path) -> dict[str, Any]:
    """Return the content of the pretraining cell of given weights: what the folder's run.json says, and no log.

    Of weights that `ladder import` wrote, "imported" says where they are from.
    """
    said = read_record(folder / "run.json")
    numbers = {name: value if isinstance(value := said.get(name), int | float) else None for name in NUMBERS}
    cell = {"status": DONE, "reason": None, **numbers, "hardware": said.get("hardware", hardware()), "log": {}}
    imported = said.get(IMPORTED)
    return cell | ({IMPORTED: {**imported, "license": said.get("license")}} if isinstance(imported, dict) else {})


def origins(pretrain: dict[tuple[str, int], dict[str, Any]]) -> list[str]:
    """Say of each imported file in the table what it is: a line with its name, kind, licence and padding.

    Args:
        pretrain: (method, seed) -> cell of the pretraining.
    """
    lines = []
    for (method, seed), cell in pretrain.items():
        if from_ := cell.get(IMPORTED):
            checksum = str(from_.get("sha256"))[:16]
            lines.append(
                f"{method}, seed {seed}: imported from {from_.get('file')} ({from_.get('kind')}, sha256 {checksum}, "
                f"licence {from_.get('license')}, {from_.get('padding')} padding)"
            )
    return lines
