"""The balanced tables of docs/results.md: every method's figure and rank in every task, and its worst rank.

Made from committed cells of the seeds that all have, with one seed of the detection head. After 1,000 steps BYOL and
the Ladder are the first seeds of the comparisons imagenette96 (classification, segmentation) and detection96
(detection): the same recipe, trained twice; after 5,000 steps they are those of convergence96.
Used by results.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ladder_training.compare.statistics import summarise

NAMES = {
    "byol": "BYOL",
    "ladder": "Ladder",
    "simclr": "SimCLR",
    "mocov2": "MoCo v2",
    "simsiam_lightly": "SimSiam",
    "barlowtwins": "Barlow Twins",
    "vicreg": "VICReg",
    "densecl": "DenseCL",
    "random": "untrained",
    "supervised": "supervised",
}
SEEDS = (0, 1, 2)
OWN = ("byol", "ladder")
"""Methods of this package, which have comparisons of their own."""


@dataclass(frozen=True)
class Task:
    """A column of the table.

    Attributes:
        name: As it stands there.
        cells: The mean over these is the figure.
        part: Key of a cell's metrics.
        metric: Key in that part.
    """

    name: str
    cells: tuple[str, ...]
    part: str
    metric: str


@dataclass(frozen=True)
class Budget:
    """The methods that are compared after the same number of steps, and where their cells are.

    Attributes:
        peers: Comparison that holds the cells of the other methods and the bounds.
        backbones: Comparison that holds the cells of BYOL and the Ladder, except those of detection.
        detectors: Comparison that holds theirs of detection.
        methods: Those that are ranked.
        bounds: Those that are shown without a rank.
    """

    peers: str
    backbones: str
    detectors: str
    methods: tuple[str, ...]
    bounds: tuple[str, ...] = ()

    def comparison(self, method: str, task: Task) -> str:
        """Name of the comparison that holds a method's cells of a task."""
        if method not in OWN:
            return self.peers
        return self.detectors if task.part == "box" else self.backbones


TASKS = (
    Task("linear, last stage", ("linear-imagenette128",), "stage4", "accuracy"),
    Task("linear, all stages", ("linear-imagenette128",), "all", "accuracy"),
    Task("Pets, mIoU", ("segmentation-pets_trimap",), "upernet", "mean_iou"),
    Task("CamVid, mIoU", ("segmentation-camvid",), "upernet", "mean_iou"),
    Task("detection, frozen, AP", ("tin_boxes10-frozen", "tin_boxes10b-frozen"), "box", "AP"),
    Task("detection, fine-tuned, AP", ("tin_boxes10-tuned", "tin_boxes10b-tuned"), "box", "AP"),
)
"""Two of each family; settled before any test score of another method was looked at."""

SHORT = Budget(
    peers="peers96",
    backbones="imagenette96",
    detectors="detection96",
    methods=(*OWN, "simclr", "mocov2", "simsiam_lightly", "barlowtwins", "vicreg", "densecl"),
    bounds=("random", "supervised"),
)
"""1,000 steps."""
LONG = Budget("peers96_long", "convergence96", "convergence96", methods=(*OWN, "simclr", "mocov2"))
"""5,000 steps."""


def figures(study: Path, budget: Budget, method: str, task: Task) -> dict[int, float]:
    """The figure of each seed that has all of a task's cells, in points.

    Args:
        study: Folder of the comparisons.
        budget: Where the cells are.
        method: Of the budget's methods or bounds.
        task: Of TASKS.
    """
    folder = study / budget.comparison(method, task) / "cells" / method
    found = {}
    for seed in SEEDS:
        files = [folder / f"seed-{seed}" / f"{cell}.json" for cell in task.cells]
        if all(file.is_file() for file in files):
            cells = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            found[seed] = 100 * sum(cell["metrics"][task.part][task.metric] for cell in cells) / len(cells)
    return found


def ranks(values: dict[str, float]) -> dict[str, int]:
    """Rank of each method by its figure: 1 is the largest, equal figures share the better rank."""
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def table(study: Path, budget: Budget) -> str:
    """The table in Markdown, of the seeds that all its methods have.

    Methods without a seed that has every task are left out, and named below it.
    """
    everyone = (*budget.methods, *budget.bounds)
    found = {name: [figures(study, budget, name, task) for task in TASKS] for name in everyone}
    seeds = {name: set.intersection(*map(set, columns)) for name, columns in found.items()}
    shared = set(SEEDS).intersection(*(had for had in seeds.values() if had))
    whole = {
        name: [[column[seed] for seed in sorted(shared)] for column in found[name]]
        for name, had in seeds.items()
        if had
    }
    if not shared:
        return "No seed is shared by the methods."
    means = {name: [sum(column) / len(column) for column in columns] for name, columns in whole.items()}
    ranked = [name for name in budget.methods if name in whole]
    by_task = [ranks({name: means[name][task] for name in ranked}) for task in range(len(TASKS))]
    places = {name: [column[name] for column in by_task] for name in ranked}
    heads = ["method", *(task.name for task in TASKS), "worst rank", "mean rank"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    order = sorted(ranked, key=lambda name: (sum(places[name]), max(places[name]), name))
    for name in [*order, *(name for name in budget.bounds if name in whole)]:
        cells, ends = [spread(column) for column in whole[name]], ["", ""]
        if name in places:
            cells = [f"{text} ({rank})" for text, rank in zip(cells, places[name], strict=True)]
            ends = [str(max(places[name])), f"{sum(places[name]) / len(TASKS):.1f}"]
        lines.append(f"| {' | '.join([NAMES[name], *cells, *ends])} |")
    lines += ["", f"Seeds: {', '.join(map(str, sorted(shared)))}."]
    if missing := [NAMES[name] for name in everyone if name not in whole]:
        lines[-1] += f" Not in the table, because a cell is missing: {', '.join(missing)}."
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and, of several seeds, standard deviation; nothing if there are none."""
    found = summarise(values)
    if found.mean is None:
        return ""
    return f"{found.mean:.1f}" + (f" ± {found.std:.1f}" if found.std is not None else "")
