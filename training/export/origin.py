"""What an exported folder says of the weights in it: from which model, under which licence."""

from pathlib import Path
from typing import Any

from ..files import write_record, write_text
from ..loading.progress import say
from ..models.provenance import EXPORTED_FILE, UNKNOWN, licence_line, provenance_of

CARD = "README.md"


def write_origin(folder: Path, format: str, source: str, own_card: bool) -> None:
    """Write `exported.json`, and say the licence; where there is one, a small README.md with it too.

    Hubs show the licence of a folder from the first lines of its README.md, whoever puts it there.

    Args:
        folder: Gets the files.
        format: Of the export.
        source: Reference to the model that was exported; a revision stands behind `@`.
        own_card: Whether the folder's README.md is there already, and stays.
    """
    from ladder_model_cards import export_note

    known = provenance_of(source)
    licence, line = licence_line(known, None)
    record: dict[str, Any] = {"version": 1, "format": format, "license": licence, "started_from": known}
    write_record(folder / EXPORTED_FILE, record)
    if line is not None:
        say(line)
    if licence != UNKNOWN and not own_card:
        write_text(folder / CARD, export_note(record))
