"""The tables of docs/results.md, from the committed comparisons; the page is brought up to date by

    python benchmarks/study/results.py

which rewrites what stands between the marks of each table, and prints it. With --check it writes nothing, and says
whether the page is up to date.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import balance

from ladder_training.compare.statistics import paired_difference

ROOT = Path(__file__).parents[2]
STUDY, PAGE = ROOT / "docs" / "study", ROOT / "docs" / "results.md"
BASELINE = "byol"
BALANCES = {"balance": balance.SHORT, "balance_long": balance.LONG}
"""The tables that balance.py makes, by name."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        name: As it stands there.
        metric: Name of the metric in comparison.json.
        evaluations: The mean over these is the figure, seed by seed.
    """

    name: str
    metric: str
    evaluations: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table: a comparison and what of it is shown.

    Attributes:
        folder: Of the comparison, in docs/study.
        lines: Those whose evaluations the comparison does not have are left out.
        same_steps: Method with as many steps as BYOL.
        same_time: Method with as much processor time as BYOL; None where it was not run.
    """

    folder: str
    lines: tuple[Line, ...]
    same_steps: str = "ladder"
    same_time: str | None = None


def _classification(data: str) -> tuple[Line, ...]:
    knn, linear = (f"knn-{data}",), (f"linear-{data}",)
    return (
        Line("linear, last stage, accuracy", "accuracy stage4", linear),
        Line("linear, all stages, accuracy", "accuracy all", linear),
        *(Line(f"kNN, stage {number}, accuracy", f"accuracy stage{number}", knn) for number in (1, 2, 3, 4)),
    )


_DENSE = (
    Line("segmentation, Pets trimaps, mIoU", "mIoU", ("segmentation-pets_trimap",)),
    Line("segmentation, CamVid, mIoU", "mIoU", ("segmentation-camvid",)),
    Line("detection, BCCD, box AP", "box AP", ("detection-bccd",)),
    Line("detection, fruit, box AP", "box AP", ("detection-fruit",)),
)

_FROZEN, _TUNED = ("tin_boxes10-frozen", "tin_boxes10b-frozen"), ("tin_boxes10-tuned", "tin_boxes10b-tuned")
_SCENES = tuple(line for line in _DENSE if line.name.startswith("segmentation"))
_BOXES = (
    Line("detection, frozen backbone, mean of both sets, box AP", "box AP", _FROZEN),
    Line("detection, fine-tuned, mean of both sets, box AP", "box AP", _TUNED),
    Line("detection, frozen backbone, tin_boxes10, box AP", "box AP", ("tin_boxes10-frozen",)),
    Line("detection, frozen backbone, tin_boxes10b, box AP", "box AP", ("tin_boxes10b-frozen",)),
    Line("detection, fine-tuned, tin_boxes10, box AP", "box AP", ("tin_boxes10-tuned",)),
    Line("detection, fine-tuned, tin_boxes10b, box AP", "box AP", ("tin_boxes10b-tuned",)),
)
_FRESH = ("tin_boxes10-tuned001", "tin_boxes10b-tuned001")
_GENTLE = (
    Line("detection, fine-tuned, mean of both sets, box AP", "box AP", _FRESH),
    Line("detection, fine-tuned, tin_boxes10, box AP", "box AP", _FRESH[:1]),
    Line("detection, fine-tuned, tin_boxes10b, box AP", "box AP", _FRESH[1:]),
)
"""With a hundredth of the head's rate for the backbone."""

TABLES = {
    "imagenette96": Table("imagenette96", (*_classification("imagenette128"), *_DENSE), same_time="ladder_short"),
    "detection96": Table("detection96", _BOXES),
    "detection96_fresh": Table("detection96_fresh", _GENTLE),
    "convergence96": Table("convergence96", (*_classification("imagenette128"), *_SCENES, *_BOXES[:2])),
    "imagenette64": Table("imagenette64", (*_classification("imagenette128"), *_DENSE)),
    "cifar10": Table("cifar10", _classification("cifar10")),
}


def values_of(comparison: dict[str, Any], line: Line, method: str) -> dict[int, float]:
    """Seed to the mean over a line's evaluations, in points; seeds that lack one of them are left out."""
    found = []
    for evaluation in line.evaluations:
        rows = [row for row in comparison["rows"] if (row["evaluation"], row["metric"]) == (evaluation, line.metric)]
        found.append({int(seed): 100 * value for row in rows for seed, value in _values(row, method).items()})
    seeds = set.intersection(*map(set, found))
    return {seed: sum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}


def table(plan: Table, comparison: dict[str, Any]) -> str:
    """The table in Markdown: mean and standard deviation, and differences with their 95 % intervals."""
    timed = plan.same_time is not None
    heads = ["task", "BYOL", "Ladder", "difference", *(["at equal time", "difference"] if timed else []), "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in plan.lines:
        baseline = values_of(comparison, line, BASELINE)
        if not baseline:
            continue
        cells = [line.name, balance.spread([*baseline.values()])]
        for method in (plan.same_steps, plan.same_time) if timed else (plan.same_steps,):
            values = values_of(comparison, line, method)
            paired = paired_difference(values, baseline)
            cells += [balance.spread([*values.values()]), difference(paired.mean, paired.low, paired.high)]
        lines.append(f"| {' | '.join([*cells, str(len(baseline))])} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with every table made anew.

    Raises:
        ValueError: the page does not have the two marks of a table.
    """
    texts = {name: balance.table(STUDY, budget) for name, budget in BALANCES.items()}
    for name, plan in TABLES.items():
        comparison = json.loads((STUDY / plan.folder / "comparison.json").read_text(encoding="utf-8"))
        texts[name] = table(plan, comparison)
    for name, text in texts.items():
        begin, end = f"<!-- table {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", flags=re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"the page needs the marks {begin} and {end} once")
        marked = f"{begin}\n{text}\n{end}"
        page = pattern.sub(lambda _, marked=marked: marked, page)
    return page


def _values(row: dict[str, Any], method: str) -> dict[str, float]:
    return row["methods"].get(method, {}).get("values", {})


def difference(mean: float | None, low: float | None, high: float | None) -> str:
    """A paired difference in points with its interval, in bold if that holds no zero; nothing if there is none."""
    if mean is None:
        return ""
    if low is None or high is None:
        return _signed(mean)
    text = f"{_signed(mean)} [{_signed(low)}, {_signed(high)}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="Write nothing; exit code 1 where the page is out of date."
    )
    arguments = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = written(before)
    if arguments.check:
        print("up to date" if after == before else "out of date")
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    for block in re.findall(r"<!-- table (\w+) -->\n(.*?)\n<!-- end -->", after, flags=re.DOTALL):
        print("\n".join(block), end="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
