"""The log of a run: a line per logging step, a table per look at the held-out images, and everything in log.jsonl."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..files import json_value, write_text

LOG_FILE = "log.jsonl"
"""One JSON object per entry of the log: `step`, `epoch` (passes), `seconds` since the process began to train, and every
value that was logged."""
_LOOK = ("knn/", "std/", "rank/")


class RunLog(TrainerCallback):
    """Prints the log of a run, in a terminal, a file or a notebook, and writes every value to `log.jsonl`.

    Args:
        images_per_step: Images per optimizer step, over all devices.
        bar: Show a progress bar where the output is a terminal or a notebook.
        write: Prints one or more lines without breaking the bar.
    """

    def __init__(self, images_per_step: int, bar: bool = True, write: Callable[[str], Any] = tqdm.write) -> None:
        self._images_per_step, self._show_bar, self._write = images_per_step, bar, write
        self._bar: Any = None
        self._first: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._started, self._first_step = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the bar, of a resumed run at its step, and drop what was logged after that step."""
        self._started, self._first_step = time.monotonic(), state.global_step
        if not state.is_world_process_zero:
            return
        looks = [entry for entry in state.log_history if _is_look(entry)]
        self._first, self._latest = (looks[0], looks[-1]) if looks else ({}, {})
        _keep_up_to(Path(args.output_dir) / LOG_FILE, state.global_step)
        if self._show_bar:
            # A file gets no bar: `disable=None` asks whether the output is a terminal, and a notebook's bar is.
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None, leave=False)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write an entry to the file, and print it if it is a loss or a look."""
        if not logs or not state.is_world_process_zero:
            return
        seconds = time.monotonic() - self._started
        entry = {"step": state.global_step, "epoch": state.epoch, "seconds": round(seconds, 3), **logs}
        path = Path(args.output_dir) / LOG_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(json_value(entry, lambda number: number)) + "\n")
        if "loss" in logs:
            self._write(log_line(logs, state, self._latest, self._seconds_left(state)))
        elif _is_look(logs):
            self._first = self._first or dict(logs)
            self._latest = dict(logs)
            self._write(look_table(logs, self._first, state.global_step))

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remove the bar, and say if the features of a finished run are worse than those it began with."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if state.is_world_process_zero and state.global_step >= state.max_steps:
            line = worse_line(self._latest, self._first)
            if line is not None:
                self._write(line)

    def _seconds_left(self, state: TrainerState) -> float | None:
        """Estimate the time left from the steps of this process."""
        done = state.global_step - self._first_step
        if done < 1:
            return None
        return (time.monotonic() - self._started) / done * (state.max_steps - state.global_step)


def log_line(
    logs: Mapping[str, float], state: TrainerState, look: Mapping[str, float], seconds_left: float | None
) -> str:
    """Format the line of a logging step: step, loss, kNN accuracy of all stages at the last look, speed, time left.

    Args:
        logs: What was logged; needs "loss".
        state: Of the trainer.
        look: Entries of the last look; empty before the first.
        seconds_left: Estimated time to the end of the run; None if it is not known.
    """
    width = len(str(state.max_steps))
    parts = [f"step {state.global_step:>{width}}/{state.max_steps}", f"loss {logs['loss']:.4f}"]
    accuracies = [value for name, value in look.items() if name.startswith("knn/")]
    if accuracies:
        parts.append("kNN % " + " ".join(f"{100 * value:.1f}" for value in accuracies))
    if "images_per_second" in logs:
        parts.append(f"{logs['images_per_second']:.0f} images/s")
    if seconds_left is not None:
        parts.append(f"{clock(seconds_left)} left")
    return "  ".join(parts)


def look_table(look: Mapping[str, float], first: Mapping[str, float], step: int) -> str:
    """Format a look at the held-out images as a table: one column per stage.

    The rows are the kNN accuracy in percent (if there are labels), the same at the first look, and the lowest spread
    and effective rank among the stage's levels.

    Args:
        look: Entries such as "knn/stage1", "std/stage1.local" and "rank/stage1.local".
        first: Those of the first look of the run.
        step: Of this look.
    """
    stages = list(dict.fromkeys(name.partition("/")[2].partition(".")[0] for name in look if name.startswith(_LOOK)))

    def lowest(group: str, stage: str) -> float | None:
        values = [v for name, v in look.items() if name == f"{group}/{stage}" or name.startswith(f"{group}/{stage}.")]
        return min(values, default=None)

    rows = [["", *stages]]
    if any(name.startswith("knn/") for name in look):
        rows.append(["kNN %", *(_shown(look.get(f"knn/{stage}"), 100, 1) for stage in stages)])
        if first and first != look:
            rows.append(["at start", *(_shown(first.get(f"knn/{stage}"), 100, 1) for stage in stages)])
    rows.append(["spread", *(_shown(lowest("std", stage), 1, 2) for stage in stages)])
    rows.append(["rank", *(_shown(lowest("rank", stage), 1, 1) for stage in stages)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"held-out images at step {step}"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def worse_line(look: Mapping[str, float], first: Mapping[str, float]) -> str | None:
    """What to say of stages whose kNN accuracy is more than a point below that at the start; None if there are none.

    Args:
        look: Entries of the last look, such as "knn/stage1".
        first: Those of the first look of the run.
    """
    names = [name for name in look if name.startswith("knn/") and look[name] < first.get(name, 0.0) - 0.01]
    if not names:
        return None
    stages = ", ".join(
        f"{name.removeprefix('knn/')} {100 * look[name]:.1f} % ({100 * first[name]:.1f} at start)" for name in names
    )
    return (
        f"kNN is lower than before training: {stages}; train longer, or change the views: `ladder inspect` shows "
        "whether a mirrored, grey or blurred view is still the same thing"
    )


def clock(seconds: float) -> str:
    """Format a duration as "0:42", "12:05" or "3:07:00" (hours, minutes, seconds)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _is_look(entry: Mapping[str, Any]) -> bool:
    return any(name.startswith(_LOOK) for name in entry)


def _shown(value: float | None, factor: float, digits: int) -> str:
    """Format one cell."""
    return "-" if value is None or not math.isfinite(value) else f"{factor * value:.{digits}f}"


def _keep_up_to(path: Path, step: int) -> None:
    """Drop the entries after a step, which a run that resumes there will write again, and an incomplete last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        # A new run at step 0 keeps nothing: it logs its first look again.
        if step > 0 and entry.get("step", 0) <= step:
            kept.append(line + "\n")
    write_text(path, "".join(kept))
