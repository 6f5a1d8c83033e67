"""Resident memory of a whole run while it trains: it must not grow with the number of steps.

    python benchmarks/memory.py [--steps 3000] [--quick] [--json FILE]

Runs `ladder pretrain digits` on small JPEG files of noise, with a data worker, a look at held-out images every 250
steps and a checkpoint every 500, and reads the resident memory of the training process and of its worker from the
system whenever the run's log reaches a mark. A pass over the images takes 15 steps.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pictures import noise_images
from report import Report, Table, parser_of

IMAGES = 240
MARKS = 6
WORDS = (
    "--dataloader_num_workers 1 --per_device_train_batch_size 16 --gradient_accumulation_steps 1 --save_total_limit 1 "
    "--warmup_steps 10 --use_cpu true --stop_on_collapse false"
)


def resident(process: int) -> float:
    """Megabytes of resident memory of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def children(process: int) -> list[int]:
    """Processes that a process has started: its data workers."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


def last_step(log: Path) -> int:
    """The last step in a run's log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines if line.endswith("}")), default=0)


def measure(steps: int, folder: Path) -> dict[str, dict[str, float]]:
    """Train, and return the memory at each mark: row -> column -> megabytes."""
    images = folder / "images"
    images.mkdir()
    for number, data in enumerate(noise_images(IMAGES, 60, 80)):
        (images / f"{number}.jpg").write_bytes(data)
    every = steps // MARKS
    command = [sys.executable, "-m", "ladder_training", "pretrain", "digits", "--dataset", str(images)]
    command += ["--output", str(folder / "run"), "--max_steps", str(steps), "--logging_steps", str(max(1, every // 10))]
    command += ["--save_steps", str(every), "--monitor_steps", str(every // 2), *WORDS.split()]
    rows: dict[str, dict[str, float]] = {}
    with (folder / "out.txt").open("w", encoding="utf-8") as out:
        # One thread: two that wait for each other on a busy machine take a hundred times as long.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        run = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        while run.poll() is None:
            time.sleep(0.05)
            step = last_step(folder / "run" / "log.jsonl")
            if step >= every * (len(rows) + 1):
                workers = max(map(resident, children(run.pid)), default=0.0)
                rows[f"step {step}"] = {"training, MB": resident(run.pid), "worker, MB": workers}
                print(f"step {step}: {rows[f'step {step}']}", file=sys.stderr, flush=True)
    if run.returncode != 0:
        sys.exit((folder / "out.txt").read_text(encoding="utf-8")[-3000:])
    return rows


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    steps = 60 if options.quick else options.steps
    report = Report("memory", options)
    with tempfile.TemporaryDirectory() as name:
        rows = measure(steps, Path(name))
    first, *_, last = rows.values()
    growth = {column: last[column] / first[column] for column in first}
    title = f"resident memory of ladder pretrain digits, {steps} steps"
    columns = {"training, MB": ".0f", "worker, MB": ".0f"}
    notes = [
        f"last mark over first: training {growth['training, MB']:.3f}, worker {growth['worker, MB']:.3f}",
    ]
    report.add(Table(title, columns, rows, notes))
    report.finish()


if __name__ == "__main__":
    main()
