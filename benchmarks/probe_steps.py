"""How many steps of the Ladder fit into some minutes: trains a few steps twice, and writes the number for gpu.sh.

python benchmarks/probe_steps.py --recipe R --dataset D --minutes 1.5 --batch-size 256 --workers 8 --output FILE
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHORT, LONG = 20, 80
# A run also starts, looks at held-out images, and saves.
_SHARE = 0.85


def seconds(options: argparse.Namespace, steps: int, folder: Path) -> float:
    """Seconds of training, from the record of a run."""
    command = [sys.executable, "-m", "ladder_training", "pretrain", options.recipe, "--dataset", options.dataset]
    command += ["--max_steps", str(steps), "--per_device_train_batch_size", str(options.batch_size), "--bf16", "true"]
    command += ["--dataloader_num_workers", str(options.workers), "--monitor_steps", "0", "--output", str(folder)]
    subprocess.run(command, check=True)
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["seconds"]


def main() -> None:
    """Measure, and write the number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("recipe", "dataset", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        short, long = (seconds(options, steps, Path(folder) / str(steps)) for steps in (SHORT, LONG))
    step = max(1e-3, (long - short) / (LONG - SHORT))
    steps = max(50, int(_SHARE * 60 * options.minutes / step))
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(f"{steps}\n", encoding="utf-8")
    print(f"{step:.4f} s a step: {steps} steps")


if __name__ == "__main__":
    main()
