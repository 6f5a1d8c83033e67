"""Which backbone works in which head and which library: every cell is checked by features, or refused in one line.

    python benchmarks/export_table.py [--limit 120] [--json FILE] [--page docs/how_to/exports.md] [--rows swin ...]

A cell is the largest difference between the features in the head, or of the library that loads the export, and those of
the backbone itself, relative to the largest feature, on random images; or its reason in one line below the table. The
weights are away from their initial values, so a head that starts anew shows. Tiny networks of each family are taken;
sizes change no name. A cell has a process of its own, which is stopped at the limit, so the command ends.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401 - what cells need is imported once, before the processes are made
import datasets  # noqa: F401
import timm  # noqa: F401
import torch
import torchvision  # noqa: F401
from export_cells import Cell, configs, export_cell, make_backbone
from head_cells import HEADS
from report import describe, machine_facts

from ladder_training.export.formats import WRITERS

PACKAGES = ("torch", "torchvision", "transformers", "timm", "onnx", "onnxscript", "onnxruntime")
LONGEST = 300
# Where the table stands in a page.
BEGIN, END = "<!-- begin of the table of exports -->", "<!-- end of the table of exports -->"
Rows = dict[str, dict[str, dict[str, Any]]]


def work_of(column: str, row: str, folder: Path) -> Cell:
    """Do the work of a cell in an empty folder."""
    source, output = folder / "backbone", folder / "output"
    backbone = make_backbone(configs()[row](), source)
    if column in WRITERS:
        return export_cell(backbone, source, column, output)
    return HEADS[column](source, output)


def in_time(limit: float, work: Callable[[], Cell]) -> Cell:
    """Do a cell's work in a process of its own, which is ended with all that it started when the limit is reached.

    Args:
        limit: Seconds.
        work: What the process does.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return Cell(None, f"not within {limit:g} s")
        return ours.recv()
    except EOFError:
        process.join()
        return Cell(None, f"the process ended with code {process.exitcode}")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()


def _answer(work: Callable[[], Cell], answers: Any) -> None:
    """In the process of a cell: work quietly on one thread, and send what came of it, also an error in one line."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    torch.set_num_threads(1)
    try:
        cell = work()
    except Exception as error:  # of any library
        cell = Cell(None, f"{type(error).__name__}: {error}")
    text = " ".join(cell.text.split())
    answers.send(Cell(cell.difference, text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."))


def table(rows: list[str], columns: list[str], limit: float) -> Rows:
    """Row -> column -> what its cell holds, and the seconds it took; a line for each on stderr."""
    found: Rows = {}
    for row in rows:
        found[row] = {}
        for column in columns:
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                cell = in_time(limit, lambda row=row, column=column, folder=folder: work_of(column, row, Path(folder)))
            seconds = round(time.monotonic() - start, 1)
            found[row][column] = {**asdict(cell), "seconds": seconds}
            shown = cell.text if cell.difference is None else f"{cell.difference:.0e} {cell.text}".strip()
            print(f"{row}, {column}: {shown} ({seconds} s)", file=sys.stderr, flush=True)
    return found


def markdown(rows: Rows) -> str:
    """Two tables, heads and exports, and the reasons below them, each once."""
    columns = list(next(iter(rows.values())))
    reasons: dict[str, int] = {}
    parts = []
    for title, group in (
        ("In a head", [name for name in columns if name in HEADS]),
        ("Exported to", [name for name in columns if name in WRITERS]),
    ):
        if not group:
            continue
        lines = [f"| {title} | " + " | ".join(group) + " |", "|---|" + "---|" * len(group)]
        for row, cells in rows.items():
            shown = [_shown(cells[name], reasons) for name in group]
            lines.append(f"| {row} | " + " | ".join(shown) + " |")
        parts.append("\n".join(lines))
    if reasons:
        parts.append("\n".join(f"{number}. {_escaped(text)}" for text, number in reasons.items()))
    return "\n\n".join(parts) + "\n"


def _shown(cell: dict[str, Any], reasons: dict[str, int]) -> str:
    """A cell as text: its difference, and the number of its reason or note."""
    number = f"[{reasons.setdefault(cell['text'], len(reasons) + 1)}]" if cell["text"] else ""
    if cell["difference"] is None:
        return number
    return f"{cell['difference']:.0e} {number}".strip() if cell["difference"] else f"0 {number}".strip()


def _escaped(text: str) -> str:
    """A reason as Markdown: what stands in angle brackets is no HTML."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def page_text(result: dict[str, Any]) -> str:
    """What stands between the marks of a page."""
    limit = result["limit"]
    return (
        f"Largest difference of the features, relative to the largest; numbers in brackets are the lines below. "
        f"A cell may take {limit:g} s. `{result['command']}`, {result['date']}; {describe(result['machine'])}.\n\n"
        f"{markdown(result['rows'])}"
    )


def rewritten(page: str, text: str) -> str:
    """A page with new text between its marks.

    Raises:
        SystemExit: the page does not have both marks.
    """
    if BEGIN not in page or END not in page:
        raise SystemExit(f"the page has no lines {BEGIN} and {END} between which the table could stand")
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda found: f"{BEGIN}\n\n{text}\n{END}", page, flags=re.DOTALL
    )


def main() -> None:
    """Fill the table, print it as Markdown, and write it where it was asked for."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=120, help="seconds that a cell may take")
    parser.add_argument("--rows", nargs="+", choices=list(configs()), default=list(configs()), metavar="BACKBONE")
    parser.add_argument(
        "--columns", nargs="+", choices=[*HEADS, *WRITERS], default=[*HEADS, *WRITERS], metavar="COLUMN"
    )
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--page", type=Path, help="a page whose table, between its marks, is written again")
    options = parser.parse_args()
    old = options.page.read_text(encoding="utf-8") if options.page else ""
    if options.page:
        rewritten(old, "")
    start = time.monotonic()
    result = {
        "command": " ".join(["python", "benchmarks/export_table.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine_facts(PACKAGES),
        "limit": options.limit,
        "rows": table(options.rows, options.columns, options.limit),
    }
    result["seconds"] = round(time.monotonic() - start)
    print(markdown(result["rows"]))
    print(f"{result['seconds']} s; {describe(result['machine'])}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(rewritten(old, page_text(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
