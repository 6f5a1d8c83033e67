"""From JPEG files on disk to optimizer steps: this package against lightly's own BYOL example with its loader.

    python benchmarks/end_to_end.py [--photos FOLDER] [--case resnet18-96] [--workers 4] [--device cuda] [--json FILE]

Same images, backbone, size of the views, batch, and number of worker processes. lightly is used as its documentation
shows: `LightlyDataset` with `BYOLTransform`, a torch `DataLoader`, SGD. Rounds alternate between the contenders; each
times a fixed number of steps after the workers have started and the first batches are out, so that nothing that was
prefetched counts as made in no time.

Without workers (the default on a processor) views are made in the training process, on the same thread, and all is
timed by processor time, which other programs disturb least: images a second of one core. With a ResNet the step takes
nearly all of it, whoever makes the views. "small-64" is the study's network of four blocks, whose step is nearer to
what a GPU leaves: there the input counts. "input" is the share of the time in which the training process made views
(without workers) or waited for them (with workers).
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from peers import Batch, Step, byol, ladder, lightly_byol
from pictures import DATA, photographs
from report import Report, Table, parser_of, ratio, spread

from ladder_training.data.sources import load_image_stream
from ladder_training.loading.loader import ViewLoader
from ladder_training.views.two_views import TwoViewTransform

CASES = {
    "small-64": ("small", 64, 64, 256),
    "resnet18-96": ("resnet18", 96, 32, 256),
    "resnet50-224": ("resnet50", 224, 8, 128),
}
"""Name -> backbone, size of a view, images per batch on a CPU, and on a GPU."""


def our_batches(folder: Path, size: int, batch: int, workers: int, device: str) -> Iterator[Batch]:
    """Batches of this package's loader."""
    loader = ViewLoader(load_image_stream(folder), TwoViewTransform(size), batch_size=batch, num_workers=workers)
    try:
        for views in loader:
            yield {name: value.to(device, non_blocking=True) for name, value in views.items()}
    finally:
        loader.close()


def lightly_batches(folder: Path, size: int, batch: int, workers: int, device: str) -> Iterator[Batch]:
    """Batches of lightly's documented input, pass after pass."""
    from lightly.data import LightlyDataset
    from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    views = {
        "view_1_transform": BYOLView1Transform(input_size=size),
        "view_2_transform": BYOLView2Transform(input_size=size),
    }
    data = LightlyDataset(str(folder), transform=BYOLTransform(**views))
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.startswith("cuda"),
    )
    while True:
        for views, *_ in loader:
            yield {"pixel_values": torch.stack([view.to(device, non_blocking=True) for view in views], dim=1)}


def timed(
    step: Step, batches: Iterator[Batch], steps: int, workers: int, clock: Callable[[], float], wait: Callable[[], Any]
) -> tuple[float, float]:
    """Seconds for a number of steps, once the input runs, and those of them until the next batch was there."""
    for _ in range(1 + 2 * workers):
        step(next(batches))
    wait()
    waiting, start = 0.0, clock()
    for _ in range(steps):
        asked = clock()
        batch = next(batches)
        waiting += clock() - asked
        step(batch)
    wait()
    seconds = clock() - start
    batches.close()  # type: ignore[attr-defined]
    return seconds, waiting


def measure(case: str, folder: Path, what: str, options: argparse.Namespace) -> Table:
    """Time every contender in each round."""
    name, size, *sizes = CASES[case]
    cuda = options.device.startswith("cuda")
    batch = options.batch_size or sizes[cuda]
    clock = time.perf_counter if cuda or options.workers else time.process_time
    wait: Callable[[], Any] = torch.cuda.synchronize if cuda else lambda: None
    torch.manual_seed(0)
    steps = {
        "BYOL": (byol(name, options.device), our_batches),
        "Ladder, four levels": (ladder(name, options.device), our_batches),
        "lightly BYOL": (lightly_byol(name, options.device), lightly_batches),
    }
    seconds: dict[str, list[float]] = {key: [] for key in steps}
    shares: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(options.rounds):
        for key, (step, batches) in steps.items():
            made = batches(folder, size, batch, options.workers, options.device)
            spent, waiting = timed(step, made, options.steps, options.workers, clock, wait)
            seconds[key].append(spent)
            shares[key].append(waiting / spent)
    images = options.steps * batch
    rows = {
        key: {
            "images/s": images / statistics.median(times),
            "range": spread([images / own for own in times], ".1f"),
            "x lightly": 1 / ratio(seconds, key, "lightly BYOL"),
            "input": statistics.median(shares[key]),
        }
        for key, times in seconds.items()
    }
    return Table(
        f"{case} on {options.device}, batch {batch}, {options.workers} workers, {what}; {options.rounds} rounds of "
        f"{options.steps} steps" + ("" if cuda or options.workers else ", by processor time of one core"),
        {"images/s": ".1f", "range": "", "x lightly": ".2f", "input": ".0%"},
        rows,
    )


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--photos", type=Path, default=DATA / "photos")
    parser.add_argument("--count", type=int, default=240, help="images on disk")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=["small-64", "resnet18-96"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make views; 0 makes them in this one")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.case, options.count, options.batch_size = ["small-64"], 24, 4
        options.steps, options.rounds = 2, 1
    if not options.workers:
        cv2.setNumThreads(0)
        torch.set_num_threads(1)
    report = Report("end_to_end", options)
    images, what = photographs(options.photos, options.count)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(max(options.count, len(images))):
            (Path(folder) / f"{number:05d}.jpg").write_bytes(images[number % len(images)])
        for case in options.case:
            report.add(measure(case, Path(folder), what, options))
    report.finish()


if __name__ == "__main__":
    main()
