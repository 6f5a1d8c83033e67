"""kNN accuracy on the way, of BYOL and the Ladder: the table of docs/study.md, "At convergence".

    python benchmarks/study/progress.py docs/study/convergence96 --steps 0 1000 2500 4000 5000

Prints the mean over the seeds that both methods have, of the accuracy on the held-out images that each run monitors,
from the log in its cell; and how much processor time the runs took.
"""

import argparse
import json
from pathlib import Path
from typing import Any

METHODS = ("byol", "ladder")
STAGES = ("stage1", "stage2", "stage3", "stage4", "all")


def logs(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Method to seed to the cell of its pretraining, of the seeds that both have."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for method in METHODS:
        files = sorted((folder / "cells" / method).glob("seed-*/pretrain.json"))
        cells = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        found[method] = {int(cell["seed"]): cell for cell in cells}
    shared = set.intersection(*map(set, found.values()))
    return {method: {seed: cells[seed] for seed in sorted(shared)} for method, cells in found.items()}


def accuracy(cells: dict[int, dict[str, Any]], stage: str, step: int) -> float:
    """The mean over seeds of the kNN accuracy that was logged at a step, in points.

    Raises:
        SystemExit: a run logged none there.
    """
    values = []
    for seed, cell in cells.items():
        log = cell["log"]["knn"]
        if step not in log["step"]:
            raise SystemExit(f"seed {seed} logged no kNN accuracy at step {step}, but at {log['step']}")
        values.append(100 * log[stage][log["step"].index(step)])
    return sum(values) / len(values)


def table(folder: Path, steps: list[int]) -> str:
    """The table in Markdown, and below it the seeds and processor seconds."""
    found = logs(folder)
    if not found[METHODS[0]]:
        raise SystemExit(f"{folder}: no seed has a pretraining cell of both {' and '.join(METHODS)}")
    heads = [name.replace("stage", "stage ") for name in STAGES]
    lines = [f"| step | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for step in steps:
        pairs = [" / ".join(f"{accuracy(found[method], stage, step):.1f}" for method in METHODS) for stage in STAGES]
        lines.append(f"| {step:,} | {' | '.join(pairs)} |")
    seconds = {method: [f"{cell['cpu_seconds']:,.0f}" for cell in cells.values()] for method, cells in found.items()}
    lines += ["", f"Seeds: {', '.join(map(str, found[METHODS[0]]))}."]
    lines += [f"Processor seconds of {method}: {', '.join(values)}." for method, values in seconds.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Of a comparison.")
    parser.add_argument("--steps", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    print(table(arguments.folder, arguments.steps))


if __name__ == "__main__":
    main()
