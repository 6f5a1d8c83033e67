"""Does the Ladder's lead grow with the depth of the network? The table of docs/study.md, "The lead and the depth".

    python benchmarks/study/depth.py docs/study/depth64/blocks*

Each folder is a `ladder compare` of BYOL and the Ladder with another number of blocks. Prints, for each: kNN accuracy
by stage, the Ladder's minus BYOL's with its 95 % interval over seeds, and after which share of its steps the Ladder has
reached BYOL's final accuracy on the monitored images.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import results

STAGES = ("stage1", "stage2", "all")


def folder_blocks(folder: Path) -> int:
    """The number of blocks, from the folder's name.

    Raises:
        SystemExit: the name does not end in a number.
    """
    digits = folder.name.removeprefix("blocks")
    if not digits.isdigit():
        raise SystemExit(f"{folder}: the name must be blocks and a number, such as blocks8")
    return int(digits)


def difference(row: dict[str, Any]) -> str:
    """The paired difference of a row of comparison.json in points, as the tables of results.py show it."""
    paired = row["methods"]["ladder"]["difference"]
    mean, low, high = (None if paired[key] is None else 100 * paired[key] for key in ("mean", "low", "high"))
    return results.difference(mean, low, high)


def line(folder: Path) -> str:
    """One line of the table, of one depth."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    rows = {row["metric"].removeprefix("accuracy "): row for row in comparison["rows"] if row["task"] == "knn"}
    shares = {row["features"]: row["mean"] for row in comparison["steps_to_reach"] if row["method"] == "ladder"}
    cells = [str(folder_blocks(folder))]
    for stage in STAGES:
        means = " / ".join(f"{100 * rows[stage]['methods'][method]['mean']:.1f}" for method in ("byol", "ladder"))
        cells += [means, difference(rows[stage])]
    reached = [shares.get(stage) for stage in STAGES]
    cells.append(" / ".join("not reached" if share is None else f"{share:.2f}" for share in reached))
    cells.append(", ".join(map(str, comparison["seeds"])))
    return f"| {' | '.join(cells)} |"


def table(folders: list[Path]) -> str:
    """The table in Markdown, by rising depth."""
    heads = ["blocks"]
    for stage in STAGES:
        heads += [f"kNN, {stage.replace('stage', 'stage ')}, BYOL / Ladder", "difference"]
    heads += ["share of the steps, stage 1 / 2 / all", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join(lines + [line(folder) for folder in sorted(folders, key=folder_blocks)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="Of the comparisons, named blocks and a number.")
    print(table(parser.parse_args().folders))


if __name__ == "__main__":
    main()
