"""Write docs/performance.md from the JSON files of the benchmarks: python benchmarks/page.py [FOLDER] [--output FILE]

FOLDER holds one JSON per benchmark (default: docs/performance). A quick variant, and one that was measured while the
machine did other work, are marked as such on the page.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from report import Table, describe, shown_as

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("step", "counts", "end_to_end", "views", "prepare", "input", "features", "scaling", "startup", "memory")
ABOUT = {
    "step": "A training step against the bare convolutions",
    "counts": "What a step costs, counted",
    "end_to_end": "From JPEG files to optimizer steps",
    "views": "Two views of an image on one core",
    "prepare": "Large photographs before and after `ladder prepare`",
    "input": "Batches from files: images a second and memory of workers",
    "features": "Embedding images",
    "scaling": "Two processes",
    "startup": "How long a command takes before it works",
    "memory": "Memory of a long run",
}
# Cores. Other work makes ratios within a run a little, and times much less reliable.
_BUSY = 0.25
HEAD = """# Performance

This page is written by `python benchmarks/page.py` from the results in `docs/performance/`. Each section comes from one
command and one run; contenders take turns, and ratios are taken within a turn. Values are medians, ranges are those of
the turns. Write it again on your machine:

```bash
pip install '.[benchmarks]'
for name in {names}; do python benchmarks/$name.py --json docs/performance/$name.json; done
python benchmarks/page.py
```

`benchmarks/gpu.sh` measures on a GPU in under ten minutes. What the numbers mean for long runs: [scale.md](scale.md).
"""


def page(results: list[dict[str, Any]]) -> str:
    """The text of the page."""
    ordered = sorted(results, key=lambda entry: ORDER.index(entry["benchmark"]))
    parts = [HEAD.format(names=" ".join(ORDER))]
    for result in ordered:
        machine = result["machine"]
        parts.append(f"## {ABOUT[result['benchmark']]}\n")
        parts.append(f"`{result['command']}`, {result['date']}. {describe(machine)}.\n")
        if result["quick"]:
            parts.append("**A quick variant, to see that the benchmark runs: not a result.**\n")
        elif machine.get("others", machine["load"]) > _BUSY:
            parts.append("**The machine did other work too: times are too long; ratios within a turn suffer less.**\n")
        parts += [markdown(Table(**table)) for table in result["tables"]]
    missing = [name for name in ORDER if name not in {result["benchmark"] for result in results}]
    if missing:
        parts.append(f"Not measured yet: {', '.join(f'`benchmarks/{name}.py`' for name in missing)}.\n")
    return "\n".join(parts)


def markdown(table: Table) -> str:
    """A table as Markdown."""
    head = f"| | {' | '.join(table.columns)} |"
    rule = f"|---|{'---:|' * len(table.columns)}"
    rows = [
        f"| {name} | {' | '.join(shown_as(row.get(key), form) for key, form in table.columns.items())} |"
        for name, row in table.rows.items()
    ]
    notes = f"\n{' '.join(table.notes)}\n" if table.notes else ""
    title = table.title[0].upper() + table.title[1:]
    return "\n".join([f"{title}:\n", head, rule, *rows, notes])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "performance")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(options.folder.glob("*.json"))]
    options.output.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
