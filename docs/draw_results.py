"""Draw the figures of the study again from the committed numbers: `python docs/draw_results.py [NAME ...]`.

NAME is a folder of docs/study with a comparison.json, `theory` or `insight`; default: all of them. Nothing is measured.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ladder_training.compare.figures import comparison_figures

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "study"


def script(name: str) -> Any:
    """A script of benchmarks/study as a module; the scripts import each other by name."""
    folder = str(ROOT / "benchmarks" / "study")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def draw(name: str) -> list[Path]:
    """Draw the figures of one part of the study and return their paths."""
    if name == "theory":
        theory = script("theory")
        rows = [theory.Row(**row) for row in json.loads((STUDY / "theory.json").read_text(encoding="utf-8"))]
        pictures = {STUDY / "theory.png": theory.figure(rows)}
    elif name == "insight":
        files = sorted(STUDY.glob("*/insight.json"))
        found = {file: json.loads(file.read_text(encoding="utf-8"))["methods"] for file in files}
        insight = script("insight")
        pictures = {file.with_suffix(".png"): insight.figure(methods) for file, methods in found.items()}
    else:
        summary = json.loads((STUDY / name / "comparison.json").read_text(encoding="utf-8"))
        pictures = {STUDY / name / "figures" / file: png for file, png in comparison_figures(summary).items()}
    for path, png in pictures.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)
    return list(pictures)


def main() -> None:
    """Draw what is asked for."""
    names = ["theory", "insight", *sorted(path.parent.name for path in STUDY.glob("*/comparison.json"))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    for name in parser.parse_args().names or names:
        for path in draw(name):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
