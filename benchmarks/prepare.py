"""What `ladder prepare` gains on large photographs: images a second before and after, in one run.

    python benchmarks/prepare.py [--photos FOLDER] [--count 48] [--rounds 5] [--quick] [--json FILE]

The photographs are those of a folder, enlarged to 4000 x 3000 pixels and saved at quality 92. Enlarged pictures are
smoother than a camera's, so the files are smaller and decode a little faster than real ones. "views" is one core making
two views of 224 pixels from bytes in memory, by process time; "stream" reads batches from the files through the whole
input side, in the training process. Rounds alternate between before and after.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import datasets
import torch
from pictures import DATA, enlarged, load_images, photographs
from report import Report, Table, interleaved, parser_of, ratio, spread

from ladder_training.data.sources import load_image_stream
from ladder_training.loading.loader import ViewLoader
from ladder_training.preparation.command import prepare
from ladder_training.preparation.options import PrepareOptions
from ladder_training.views.two_views import TwoViewTransform

WIDTH, HEIGHT, SIZE, BATCH = 4000, 3000, 224, 8


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--photos", type=Path, default=DATA / "photos", help="photographs to enlarge")
    parser.add_argument("--count", type=int, default=48, help="photographs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short-side", type=int, default=320)
    options = parser.parse_args()
    if options.quick:
        options.count, options.rounds = 16, 2
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    report = Report("prepare", options)
    with tempfile.TemporaryDirectory() as folder:
        report.add(measure(Path(folder), options))
    report.finish()


def measure(folder: Path, options: Any) -> Table:
    """Write the photographs, prepare them, and time both."""
    images, what = photographs(options.photos, options.count)
    before, after = folder / "before", folder / "after"
    before.mkdir()
    for number in range(options.count):
        (before / f"{number:04d}.jpg").write_bytes(enlarged(images[number % len(images)], WIDTH, HEIGHT))
    settings = PrepareOptions(dataset=str(before), output=str(after), short_side=options.short_side)
    start, used = time.perf_counter(), time.process_time()
    counts = prepare(settings)["train"]
    wall, used = time.perf_counter() - start, time.process_time() - used
    cv2.setNumThreads(0)
    large, small = ([*load_images(place, options.count)] for place in (before, after))
    transform = TwoViewTransform(SIZE)

    def views(files: list[bytes]) -> None:
        for seed, data in enumerate(files):
            transform(data, seed=seed)

    def stream(place: Path) -> None:
        loader = ViewLoader(load_image_stream(place, cache_dir=str(folder / "cache")), transform, batch_size=BATCH)
        for _ in itertools.islice(loader, options.count // BATCH):
            pass
        loader.close()

    count = options.count
    in_views = interleaved(
        {"before": lambda: views(large), "after": lambda: views(small)}, options.rounds, time.process_time
    )
    in_stream = interleaved(
        {"before": lambda: stream(before), "after": lambda: stream(after)}, options.rounds, time.process_time
    )
    rows = {}
    for name, size in (("before", counts["source_bytes"]), ("after", counts["written_bytes"])):
        rows[name] = {
            "kB an image": size / count / 1000,
            "views, images/s": count / statistics.median(in_views[name]),
            "range": spread([count / seconds for seconds in in_views[name]], ".0f"),
            "x before": 1 / ratio(in_views, name, "before"),
            "stream, images/s": count // BATCH * BATCH / statistics.median(in_stream[name]),
            "x before ": 1 / ratio(in_stream, name, "before"),
        }
    forms = {
        "kB an image": ".0f",
        "views, images/s": ".0f",
        "range": "",
        "x before": ".2f",
        "stream, images/s": ".0f",
        "x before ": ".2f",
    }
    return Table(
        f"two views of {SIZE} from {WIDTH} x {HEIGHT} photographs before and after ladder prepare --short_side "
        f"{options.short_side}: {what}, enlarged; {options.rounds} rounds, one core",
        forms,
        rows,
        [f"preparing: {count / wall:.1f} images/s in all, {count / used:.1f} per second of one core"],
    )


if __name__ == "__main__":
    main()
