"""Where the weights of a model are from and under which licence, so that what is made from them says the same."""

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_record
from .reference import hub_file, model_folder, run_around, split_revision

UNKNOWN = "other"
"""Licence of weights whose licence nobody has told."""

EXPORTED_FILE = "exported.json"
"""Record of a folder that `ladder export` wrote."""
_RECORDS = ("run.json", "finetuned.json", EXPORTED_FILE)


def provenance_of(reference: str) -> dict[str, Any]:
    """What is known of weights that something new is made from. No weights are read.

    Args:
        reference: A run's folder, a checkpoint or `pretraining/` in it, a fine-tuned folder, any other folder or a Hub
            name.

    Returns:
        "model", the reference; "license", an identifier or None; and "imported" as `ladder import` recorded it, also
        if there are runs in between; None for weights that were not imported.
    """
    name, revision = split_revision(reference)
    known: dict[str, Any] = {"model": reference, "license": None, "imported": None}
    if not Path(name).expanduser().exists():
        return {**known, "license": _hub_licence(name, revision)}
    folder = Path(model_folder(name))
    run = run_around(folder)
    for place in (folder,) if run is None else (folder, run):
        for record in (read_record(place / file) for file in _RECORDS):
            if record:
                earlier = record.get("started_from")
                imported = record.get("imported") or (earlier.get("imported") if isinstance(earlier, dict) else None)
                return {
                    **known,
                    "license": _told(record.get("license")),
                    "imported": imported if isinstance(imported, dict) else None,
                }
        if (place / "README.md").is_file():
            return {**known, "license": _card_licence(place / "README.md")}
    return known


def licence_line(source: dict[str, Any], asked: str | None) -> tuple[str, str | None]:
    """The licence of what is made from weights, and what is to be said about it.

    Args:
        source: From `provenance_of`.
        asked: The licence that the user gave; None or "other" takes that of the source.

    Returns:
        (identifier, one line; None if there is nothing to say).
    """
    model, theirs = source["model"], source["license"]
    if theirs is None:
        return asked or UNKNOWN, None
    if asked in (None, UNKNOWN):
        return theirs, f"licence: {theirs}, that of the weights of {model}"
    if asked != theirs:
        return (
            asked,
            f"licence: {asked}, as you say; the weights of {model} are under {theirs}, which the card says too",
        )
    return asked, None


def _hub_licence(name: str, revision: str | None) -> str | None:
    """What the card of a Hub repository says; None if it says nothing or cannot be had."""
    try:
        card = hub_file(name, "README.md", revision)
    except UserError:
        return None
    return None if card is None else _card_licence(card)


def _card_licence(card: Path) -> str | None:
    import yaml
    from huggingface_hub import metadata_load

    try:
        return _told((metadata_load(card) or {}).get("license"))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # no card of the Hub: nothing is known
        return None


def _told(licence: Any) -> str | None:
    return licence if isinstance(licence, str) and licence not in ("", UNKNOWN) else None
