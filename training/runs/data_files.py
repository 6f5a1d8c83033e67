"""The files of a run's data sets, as they were at its start: a run must not go on with other data without a word."""

import json
from pathlib import Path
from typing import Any

from ..files import write_json

DATA_FILES = "data_files.json"
MOST_LISTED = 100_000
"""Of a data set with more files, only their number, their size and a hash are kept."""

_NAMED = 3

Files = dict[str, list[Any]]
"""Path in the data set -> [bytes, hash of the content or None]."""


def write_data_files(folder: Path, data_sets: dict[str, dict[str, Any]]) -> None:
    """Write the files of the data sets into a run's folder, without secrets in the data sets' names.

    Args:
        folder: The run's folder.
        data_sets: Name of a data set -> {"count", "bytes", "hash", "files": `Files` or None}.
    """
    from ladder_model_cards.secrets import hide_secrets

    shown: dict[str, dict[str, Any]] = {}
    for name, described in data_sets.items():
        hidden = hide_secrets(name)
        shown[hidden if hidden not in shown else f"{hidden} {len(shown)}"] = described
    write_json(folder / DATA_FILES, shown)


def began_with(folder: Path) -> list[str]:
    """The hashes of the local data sets that a run began with, in their order; empty if the run has kept none."""
    try:
        saved = list(json.loads((folder / DATA_FILES).read_text(encoding="utf-8")).values())
    except (OSError, ValueError, AttributeError):
        return []
    return [str(described["hash"]) for described in saved if isinstance(described, dict) and "hash" in described]


def changed_data(folder: Path, names: list[str], data_sets: dict[str, dict[str, Any]]) -> list[str]:
    """What differs between the data sets and those that a run began with, one text for each that differs.

    Args:
        folder: The run's folder.
        names: The data sets in their order; they may be spelt in another way than at the start.
        data_sets: As for `write_data_files`, as they are now.

    Returns:
        Nothing if the run has kept no list, as older runs have not.
    """
    try:
        saved = list(json.loads((folder / DATA_FILES).read_text(encoding="utf-8")).values())
    except (OSError, ValueError, AttributeError):
        return []
    listed = [name for name in names if name in data_sets]
    found = []
    for name, before in zip(listed, saved, strict=False):
        difference = _difference(before, data_sets[name])
        if difference:
            found.append(f"{name}: {difference}")
    return found


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("hash") == now["hash"]:
        return ""
    old, new = before.get("files"), now["files"]
    if not isinstance(old, dict) or new is None:
        then = f"{before.get('count')} files of {before.get('bytes')} bytes"
        return f"{then} at the start, {now['count']} of {now['bytes']} now"
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    other = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    parts = [
        f"{len(files):,} {what} ({', '.join(files[:_NAMED])}{', ...' if len(files) > _NAMED else ''})"
        for files, what in ((gone, "files are gone"), (added, "are new"), (other, "have another content"))
        if files
    ]
    return ", ".join(parts)
