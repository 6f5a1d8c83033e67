"""The plans of six cases, and whether the memory that a plan says is enough, measured where there is no GPU.

    python benchmarks/plan_memory.py [--case N] [--steps 6]

Prints the plan of each case, made from figures that are simulated. For the three cases without a GPU it then makes such
images, plans for this machine and trains a few steps in a process of its own, from the first look at the images to the
published folder, and prints the most memory that the process held (`ru_maxrss`) beside what its plan says. Exits with 1
if a plan says less than was measured.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ladder_training.pretraining.facts import measure_images, measure_machine
from ladder_training.pretraining.plan_text import plan_table
from ladder_training.pretraining.planner import GIB, Gpu, ImageFacts, MachineFacts, make_plan
from ladder_training.runs.run_folder import hardware, versions

TWO_CORES = MachineFacts(cores=2, memory=8 * GIB)
ONE_GPU = MachineFacts(cores=16, memory=64 * GIB, gpus=(Gpu("a card", 24 * GIB),))
EIGHT_GPUS = MachineFacts(cores=96, memory=512 * GIB, gpus=(Gpu("a card", 80 * GIB),) * 8)
THUMBNAILS = ImageFacts("thumbnails", 200, 64, 3_000)
PHOTOS = ImageFacts("photos", 5_000, 375, 110_000)
STREAM = ImageFacts("million", 1_000_000, 375, 110_000, streaming=True)
CASES = {
    "200 images of 64 pixels": (THUMBNAILS, TWO_CORES),
    "5,000 photographs": (PHOTOS, TWO_CORES),
    "a stream on two cores": (replace(STREAM, count=None), TWO_CORES),
    "a million as a stream": (STREAM, ONE_GPU),
    "one GPU of 24 GB": (replace(PHOTOS, count=100_000), ONE_GPU),
    "eight GPUs": (replace(PHOTOS, count=1_281_167), EIGHT_GPUS),
}
DIFFERENT = 40
STREAMED = 3000
"""Images of the stream that is made: more than a shuffle buffer holds."""


def pictures(side: int) -> list[bytes]:
    """A few JPEG files of noise over a gradient, `side` pixels high and a third wider."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DIFFERENT):
        smooth = np.linspace(0, 200, side * (side * 4 // 3)).reshape(side, -1, 1) * rng.random(3)
        pixels = np.clip(smooth + rng.normal(0, 20, (*smooth.shape[:2], 3)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=92)
        found.append(file.getvalue())
    return found


def write_images(images: ImageFacts, folder: Path) -> Path:
    """Write what a case is about: a folder of files, or two tar archives for a stream. Most are copies of a few."""
    folder.mkdir()
    files = pictures(images.side)
    if images.streaming:
        for shard in range(2):
            with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
                for number in range(STREAMED // 2):
                    entry = tarfile.TarInfo(f"{number:05d}.jpg")
                    entry.size = len(files[number % DIFFERENT])
                    archive.addfile(entry, io.BytesIO(files[number % DIFFERENT]))
        return folder
    for number in range(images.count or 0):
        path = folder / f"{number:05d}.jpg"
        if number < DIFFERENT:
            path.write_bytes(files[number])
        else:
            os.link(folder / f"{number % DIFFERENT:05d}.jpg", path)
    return folder


def measure(images: ImageFacts, folder: Path, steps: int) -> tuple[int, int]:
    """(bytes that the plan for this machine says, most bytes that its process held)."""
    data = write_images(images, folder / "images")
    stream = ["--streaming"] if images.streaming else []
    facts = measure_images([str(data)], split="train", streaming=images.streaming)
    plan = make_plan(facts, measure_machine(), {"max_steps": steps})
    command = [sys.executable, "-m", "ladder_training", "pretrain", "--dataset", str(data), "--max_steps", str(steps)]
    more = ["--output", str(folder / "run"), "--report_to", "none", "--disable_tqdm", "true"]
    child = subprocess.Popen([*command, *stream, *more], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"ladder pretrain ended with {os.waitstatus_to_exitcode(status)}")
    return plan.host_bytes, _bytes(used)


def _bytes(used: resource.struct_rusage) -> int:
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Print the plans and what was measured; the exit code says whether every plan was enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, choices=range(1, len(CASES) + 1), help="only this one")
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    enough, rows = True, []
    for number, (name, (images, machine)) in enumerate(CASES.items(), 1):
        if arguments.case not in (None, number):
            continue
        print(f"\n{number}. {name}\n{plan_table(make_plan(images, machine, {}))}", flush=True)
        if not machine.gpus:
            with tempfile.TemporaryDirectory() as folder:
                said, used = measure(images, Path(folder), arguments.steps)
            enough &= used <= said
            rows.append(f"{name:<26} {said / GIB:>8.2f} {used / GIB:>9.2f} {said / used:>7.2f}")
    if rows:
        print(f"\n{'GB of memory':<26} {'the plan':>8} {'measured':>9} {'ratio':>7}")
        print("\n".join(rows))
        numbers = ", ".join(f"{name} {version}" for name, version in versions().items())
        print(f"{hardware(torch.device('cpu'), 1)}; {numbers}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
