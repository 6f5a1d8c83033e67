"""The README.md of an exported backbone: where its weights are from, and their licence."""

from pathlib import Path
from typing import Any

from .card import BEGIN, END
from .metadata import card_licence
from .run_files import RunFiles
from .sections import lineage
from .text import plain, shown_dataset, table


def export_note(record: dict[str, Any]) -> str:
    """Write the text of a README.md for an exported backbone.

    Args:
        record: The content of `exported.json`: "format", "license", and "started_from" with "model", "license" and
            "imported".

    Returns:
        Markdown, whose first lines tell the Hub the licence. `ladder card` replaces all but what is written by hand
        between its two marks.
    """
    files = RunFiles(path=Path(), exported=record)
    name = shown_dataset(files.started_from.get("model") or "")
    rows = [["Format", plain(record.get("format") or "")], ["Licence", plain(files.license)]]
    rows += [[title, plain(value)] for title, value in lineage(files)]
    return "\n".join(
        [
            f"---\nlicense: {card_licence(files)}\n---",
            f"# Backbone of {plain(name)}\n",
            "Written by `ladder export`; the licence of the weights goes with them.\n",
            f"{table(['', ''], rows)}\n",
            f"{BEGIN}\n{END}\n",
        ]
    )
