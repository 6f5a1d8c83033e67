"""comparison.json and comparison.md: the table of all tasks, the cost of pretraining, and how fast methods learn."""

from pathlib import Path
from typing import Any

from ..evaluation.report import file_name
from ..files import write_text
from .cells import write_compact
from .fingerprints import cell_value

JSON_FILE, TABLE_FILE = "comparison.json", "comparison.md"
_MISSING = "-"


def write_report(folder: Path, summary: dict[str, Any], figures: list[str]) -> None:
    """Write both files.

    Args:
        folder: Of the comparison.
        summary: From `summarise_comparison`.
        figures: File names in figures/ that the text shows.
    """
    write_compact(folder / JSON_FILE, cell_value(summary))
    write_text(folder / TABLE_FILE, markdown(summary, figures))


def markdown(summary: dict[str, Any], figures: list[str]) -> str:
    """Return the text of comparison.md.

    Args:
        summary: From `summarise_comparison`.
        figures: File names in figures/ that the text shows.
    """
    seeds = ", ".join(str(seed) for seed in summary["seeds"])
    parts = [
        f"# {summary['recipe']}: {', '.join(summary['methods'])}",
        f"Pretrained on {_joined(summary['dataset'])} with seeds {seeds}; every method sees the same images and views "
        f"in the same order. Figures in points (%): mean ± standard deviation over seeds; difference to "
        f"{summary['baseline']}, seed by seed, with its 95 % t-interval. Of tasks with a figure per stage the last "
        "stage is the headline (bold).",
        grid(*results_table(summary)),
        "## Pretraining",
        grid(*pretraining_table(summary)),
    ]
    if summary["steps_to_reach"]:
        parts += [
            f"## Steps to reach the final kNN accuracy of {summary['baseline']}",
            f"As a share of the steps of {summary['baseline']} (in brackets: of its seconds); its own row says when it "
            "first had what it has at the end. Where a seed never reaches it: when the mean over seeds reaches the end "
            f"of {summary['baseline']}'s mean.",
            grid(*reach_table(summary)),
        ]
    if summary["notes"]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in summary["notes"])]
    if figures:
        parts += ["## Figures", "\n\n".join(f"![{Path(name).stem}](figures/{name})" for name in figures)]
    return "\n\n".join(parts) + "\n"


def results_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of the table of all tasks."""
    baseline, methods = summary["baseline"], summary["methods"]
    others = [name for name in methods if name != baseline]
    heads = ["task", "data set", "metric", *methods, *(f"{name} − {baseline}" for name in others)]
    rows = []
    for row in summary["rows"]:
        scores = row["methods"]
        metric = f"**{row['metric']}**" if row["headline"] else row["metric"]
        means = [_mean(scores[name], len(summary["seeds"])) for name in methods]
        differences = [_difference(scores[name]["difference"]) for name in others]
        dataset = f"{row['dataset']} (mean of {row['repeats']})" if "repeats" in row else row["dataset"]
        rows.append([_task(row), dataset, metric, *means, *differences])
    return heads, rows


def pretraining_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of the table of what the runs cost and how they ended."""
    rows = []
    for name in summary["methods"]:
        runs = summary["pretraining"].get(name, {})
        states: dict[str, list[str]] = {}
        for seed, run in runs.items():
            states.setdefault(run["status"], []).append(seed)
        state = "; ".join(f"{status} (seeds {', '.join(seeds)})" for status, seeds in states.items())
        rows.append(
            [
                name,
                "/".join(sorted({str(run["steps"]) for run in runs.values() if run["steps"] is not None})) or _MISSING,
                _average(runs, "seconds"),
                _average(runs, "cpu_seconds"),
                state or _MISSING,
            ]
        )
    return ["method", "steps", "seconds", "processor seconds", "state"], rows


def reach_table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of the steps to the baseline's final accuracy, by method and stage."""
    names = list(dict.fromkeys(row["features"] for row in summary["steps_to_reach"]))
    rows = []
    for method in summary["methods"]:
        by_stage = {row["features"]: row for row in summary["steps_to_reach"] if row["method"] == method}
        if by_stage:
            rows.append([method, *(_reach(by_stage.get(name)) for name in names)])
    return ["method", *names], rows


def grid(heads: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table whose columns are also aligned as plain text."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _task(row: dict[str, Any]) -> str:
    """Name the task of a row, and the evaluation if the user gave it a name."""
    default = f"{row['task']}-{file_name(row['dataset'])}"
    return row["task"] if row["evaluation"] == default else f"{row['task']} ({row['evaluation']})"


def _mean(scores: dict[str, Any], seeds: int) -> str:
    """Format mean and standard deviation in points, with the number of seeds if some are missing."""
    if scores["count"] == 0:
        return "collapsed" if scores["collapsed"] else _MISSING
    text = f"{100 * scores['mean']:.1f}"
    if scores["std"] is not None:
        text += f" ± {100 * scores['std']:.1f}"
    notes = [f"n={scores['count']}"] if scores["count"] < seeds else []
    if scores["collapsed"]:
        notes.append(f"{len(scores['collapsed'])} collapsed")
    return text + (f" ({', '.join(notes)})" if notes else "")


def _difference(difference: dict[str, Any]) -> str:
    """Format a difference and its interval in points."""
    if difference["mean"] is None:
        return _MISSING
    text = _signed(difference["mean"])
    if difference["low"] is not None:
        text += f" [{_signed(difference['low'])}, {_signed(difference['high'])}]"
    return text


def _signed(value: float) -> str:
    """Format a number in points with its sign; what rounds to nothing is +0.0, on either side."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _reach(row: dict[str, Any] | None) -> str:
    """Format a share of the baseline's steps (and seconds), or how many seeds reached its accuracy."""
    if row is None:
        return _MISSING
    if row["mean"] is None:
        text = f"reached by {row['reached']} of {len(row['ratio'])}"
        return text if row["mean_curve"] is None else f"{text}; their mean at {row['mean_curve']:.2f}"
    return f"{row['mean']:.2f} ({row['wall_clock_mean']:.2f})"


def _average(runs: dict[str, dict[str, Any]], name: str) -> str:
    """Format the average of a number that the runs recorded."""
    known = [run[name] for run in runs.values() if run.get(name) is not None]
    return f"{sum(known) / len(known):.0f}" if known else _MISSING


def _joined(dataset: Any) -> str:
    return " and ".join(dataset) if isinstance(dataset, list) else str(dataset)
