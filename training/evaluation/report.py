"""The result of an evaluation: the printed table, and the JSON file that model cards and comparisons read."""

import html
import math
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, system_error
from ..files import json_value, short_file_name, write_record
from ..models.all_stages import ALL_STAGES
from ..runs.run_folder import now, versions

FOLDER = "evaluation"


@dataclass
class EvaluationResult:
    """The metrics of one model on one task and data set, with everything needed to reproduce them.

    Attributes:
        task: "knn", "linear", "detection", ...
        dataset: Name of the data set.
        split: Name of the split that was scored.
        fit_split: Name of the split that was fitted on.
        model: What was evaluated, as the user named it.
        metrics: Stage (or "all", "box", "mask", ...) to metric name to value; accuracies are from 0 to 1.
        protocol: Every setting that led to the metrics.
        seed: Of everything random in the task.
        count: {"fit": number of images fitted on, "score": number of images scored}.
        seconds: Wall-clock time.
        notes: What a reader of the metrics must know (settings that were clamped, images that were skipped, ...).
        classes: Class names in the order of the labels.
        per_class: Metric name to one value per class, None if it is not defined.
        versions: Of the packages that were used.
        date: When the result was made.
        path: The file that it was written to, or None.
        untrained: As `metrics`, of the same architecture with random weights; empty if it was not measured.
    """

    task: str
    dataset: str
    split: str
    fit_split: str
    model: str
    metrics: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    seed: int
    count: dict[str, int]
    seconds: float
    notes: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    per_class: dict[str, list[float | None]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)
    date: str = field(default_factory=now)
    path: Path | None = None
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file. Values that are not defined (NaN) become null."""
        names = (
            "task dataset split fit_split model metrics protocol seed count seconds notes classes per_class "
            "versions date"
        )
        names += " untrained" if self.untrained else ""
        return {name: json_value(getattr(self, name), lambda number: round(number, 6)) for name in names.split()}

    def save(self, output: str | Path) -> Path:
        """Write `output/evaluation/TASK-DATASET.json` in one step and return its path.

        Where it cannot be written, print the table first: what took hours is not lost with the file.
        """
        from ladder_model_cards.secrets import hide_secrets

        self.path = result_path(output, self.task, hide_secrets(self.dataset))
        try:
            write_record(self.path, self.to_dict())
        except OSError:
            print(self.table(), flush=True)
            raise
        return self.path

    def mean(self) -> dict[str, float]:
        """Average each metric over the stages, without "all"; empty if there is only one stage."""
        return _mean_of_stages(self.metrics)

    def table(self) -> str:
        """Format the metrics as a text table: one row per stage, their mean, and all stages together.

        Beside the first metric stands that of the untrained network, and at the end the number of images scored.
        """
        rows, untrained = self._rows(self.metrics), self._rows(self.untrained)
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        cells = [["", *columns[:1], *(["untrained"] if untrained else []), *columns[1:], "images"]]
        for name, row in rows.items():
            shown = [_shown(row.get(column)) for column in columns]
            if untrained:
                shown.insert(1, _shown(untrained.get(name, {}).get(columns[0])))
            cells.append([name, *shown, str(self.count["score"])])
        widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
        lines = [
            f"{self.task} on {self.dataset}: fitted on {self.count['fit']} images ({self.fit_split}), "
            f"scored on {self.count['score']} ({self.split}), seed {self.seed}, {self.seconds:.0f} s"
        ]
        for line in cells:
            first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            lines.append("  ".join([line[0].ljust(len(first)), *others]).rstrip())
        lines += [f"note: {note}" for note in self.notes]
        if self.path is not None:
            lines.append(f"written to {self.path}")
        return "\n".join(lines)

    __str__ = table

    def _repr_html_(self) -> str:
        """The table for a notebook: each value from 0 to 1 has a bar of its length."""
        title, *lines = self.table().splitlines()
        rows, untrained = self._rows(self.metrics), self._rows(self.untrained)
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        named = ["", *columns, *(["untrained"] if untrained else [])]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in named)
        body = ""
        for name, row in rows.items():
            values = [row.get(column) for column in columns]
            values += [untrained.get(name, {}).get(columns[0])] if untrained else []
            body += f"<tr><th>{html.escape(name)}</th>{''.join(map(_html_cell, values))}</tr>"
        notes = [line for line in lines if line.startswith(("note: ", "written to "))]
        below = "".join(f"<div>{html.escape(line)}</div>" for line in notes)
        return f"<div>{html.escape(title)}</div><table><tr>{head}</tr>{body}</table>{below}"

    def _rows(self, metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        """The rows of the table: every stage, the mean of the stages for tasks that have one, all stages together."""
        rows = {name: row for name, row in metrics.items() if name != ALL_STAGES}
        if self.task in ("knn", "linear") and _mean_of_stages(metrics):
            rows["mean"] = _mean_of_stages(metrics)
        if ALL_STAGES in metrics:
            rows[ALL_STAGES] = metrics[ALL_STAGES]
        return rows


def _mean_of_stages(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """Average each metric over the stages, without "all"; empty if there are fewer than two stages."""
    rows = [row for name, row in metrics.items() if name != ALL_STAGES]
    if len(rows) < 2 or any(row.keys() != rows[0].keys() for row in rows):
        return {}
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def result_path(output: str | Path, task: str, dataset: str) -> Path:
    """Path of a result's JSON file in a run's folder."""
    return Path(output) / FOLDER / f"{task}-{file_name(dataset)}.json"


def file_name(dataset: str) -> str:
    """Turn a data set's name into part of a file name: "user/name" becomes "user--name"."""
    safe = re.sub(r"[^\w.-]+", "-", dataset.replace("/", "--")).strip("-.")
    return short_file_name(safe or "dataset")


def check_output(output: str | Path | None) -> None:
    """Check, before hours of work, that the result can be written.

    Raises:
        UserError: `output`, or the evaluation folder in it, is a file, or no file can be written there.
    """
    if output is None:
        return
    folder = Path(output) / FOLDER
    for path in (Path(output), folder):
        if path.exists() and not path.is_dir():
            raise UserError(f"output {path} is a file; give a folder")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        error.filename = str(folder)  # not that of the trial
        raise UserError(f"the result could not be written: {system_error(error)}") from error


def _html_cell(value: Any) -> str:
    """One cell of the table for a notebook."""
    from ladder_model_cards.figures.style import share_bar

    share = value if isinstance(value, float) and 0 <= value <= 1 else 0.0
    return f'<td style="text-align:right;{share_bar(share)}">{_shown(value)}</td>'


def _shown(value: Any) -> str:
    """Format one cell of the table."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
