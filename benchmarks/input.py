"""The input side from files to batches: images/s and memory per worker, and what continuing costs.

    python benchmarks/input.py --dataset FOLDER          Parquet and WebDataset, 0, 1 and 2 workers; ten times the set
    python benchmarks/input.py --resume                  continuing after a million examples (synthetic)

Memory of a worker process: USS (its own) and PSS (with its share of what it shares with others), from
/proc/PID/smaps_rollup, largest of the samples taken once per second.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import torch
from report import Report, Table, parser_of, spread

from ladder_training.data.sources import load_image_stream
from ladder_training.loading.loader import ViewLoader
from ladder_training.views.two_views import TwoViewTransform

MEGABYTE = 1 << 20
SHARDS = 4
TAR_IMAGES = 10_000  # usual for WebDataset shards


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--dataset", default="digits", help="images to repeat, as `load_image_stream` takes them")
    parser.add_argument("--images", type=int, default=2000, help="images of the small set")
    parser.add_argument("--size", type=int, default=224, help="side of the views, pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--buffer", type=int, default=512, help="shuffle buffer of each worker, images")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="measure continuing instead")
    parser.add_argument("--examples", type=int, default=1_000_000, help="consumed before continuing")
    options = parser.parse_args()
    if options.quick:
        options.images, options.seconds, options.repeats, options.examples = 200, 1.0, 1, 20_000
    datasets.disable_progress_bars()
    report = Report("input", options, ("torch", "datasets", "pyarrow", "opencv-python-headless"))
    with tempfile.TemporaryDirectory() as folder:
        report.add(
            measure_resume(Path(folder), options.examples) if options.resume else measure_input(Path(folder), options)
        )
    report.finish()


def measure_input(folder: Path, options: argparse.Namespace) -> Table:
    """Images/s and memory for both containers, and for sets of both sizes."""
    source = load_image_stream(options.dataset)
    undecoded = source.cast_column("image", datasets.Image(decode=False))["image"]
    images = [row["bytes"] for row in itertools.islice(undecoded, options.images)]
    for name, count in (("small", options.images), ("large", 10 * options.images)):
        write_parquet(folder / name / "parquet", images, count)
        write_tars(folder / name / "webdataset", images, count)
    mean = statistics.mean(map(len, images)) / 1000
    title = (
        f"{options.dataset}: {len(images)} images of {mean:.0f} kB; sets of {options.images} and ten times that; "
        f"two views of {options.size}, batches of {options.batch_size}, buffer of {options.buffer} images "
        f"({options.buffer * mean / 1000:.0f} MB); {options.repeats} times {options.seconds:g} s"
    )
    cases = [(kind, "small", workers) for kind in ("parquet", "webdataset", "map-style") for workers in (0, 1, 2)]
    cases += [(kind, "large", workers) for kind in ("parquet", "webdataset") for workers in (1, 2)]
    rows = {}
    for kind, size, workers in cases[:3] if options.quick else cases:
        place = folder / size / ("parquet" if kind == "map-style" else kind)
        dataset = load_image_stream(place, streaming=kind != "map-style", cache_dir=str(folder / "cache"))
        runs = [run(dataset, workers, options) for _ in range(options.repeats)]
        speeds = [speed for speed, _, _ in runs]
        uss, pss = (max(values) / MEGABYTE for values in zip(*(memory for _, *memory in runs), strict=True))
        rows[f"{kind}, {size} set, {workers} workers"] = {
            "images/s": statistics.mean(speeds),
            "range": spread(speeds, ".0f"),
            "USS MB": uss if workers else None,
            "PSS MB": pss if workers else None,
        }
    return Table(title, {"images/s": ".0f", "range": "", "USS MB": ".0f", "PSS MB": ".0f"}, rows)


def run(dataset: Any, workers: int, options: argparse.Namespace) -> tuple[float, int, int]:
    """(images/s, largest USS, largest PSS of a worker in bytes) of one measurement."""
    loader = ViewLoader(
        dataset,
        TwoViewTransform(size=options.size),
        batch_size=options.batch_size,
        num_workers=workers,
        shuffle_buffer=options.buffer,
    )
    batches = iter(loader)
    # The first blocks are being read, and what is prefetched meanwhile would count as made in no time.
    for _ in range(1 + 3 * workers):
        next(batches)
    images, uss, pss = 0, 0, 0
    start = sampled = time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        images += len(next(batches)["pixel_values"])
        if time.perf_counter() - sampled > 1:
            sampled = time.perf_counter()
            for child in multiprocessing.active_children():
                own, shared = process_memory(child.pid)
                uss, pss = max(uss, own), max(pss, shared)
    elapsed = time.perf_counter() - start
    loader.close()
    return images / elapsed, uss, pss


def process_memory(pid: int) -> tuple[int, int]:
    """(USS, PSS) of a process, bytes."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        fields[name.rstrip(":")] = int(value) * 1024
    return fields["Private_Clean"] + fields["Private_Dirty"], fields["Pss"]


def write_parquet(folder: Path, images: list[bytes], count: int) -> None:
    """Write `count` images, repeating `images`, as Parquet files with row groups of 100."""
    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image()})
    for shard in range(SHARDS):
        rows = [{"bytes": images[n % len(images)], "path": None} for n in range(shard, count, SHARDS)]
        part = datasets.Dataset.from_dict({"image": rows}, features=features)
        part.to_parquet(folder / f"train-{shard:05d}.parquet", batch_size=100)


def write_tars(folder: Path, images: list[bytes], count: int) -> None:
    """Write the same images as WebDataset shards of at most `TAR_IMAGES`."""
    folder.mkdir(parents=True)
    shards = max(SHARDS, -(-count // TAR_IMAGES))
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard:05d}.tar", "w") as tar:
            for number in range(shard, count, shards):
                data = images[number % len(images)]
                member = tarfile.TarInfo(f"{number:08d}.jpg")
                member.size = len(data)
                tar.addfile(member, BytesIO(data))


class NoDecoding:
    """A transform that costs nothing: continuing must not decode what was consumed, so decoding is left out."""

    def __call__(self, image: dict, seed: int | None = None) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.tensor(len(image["bytes"])), "seed": torch.tensor(seed)}


def measure_resume(folder: Path, examples: int) -> Table:
    """How long the first batch takes after continuing, against what the examples before it took."""
    images = [os.urandom(64) for _ in range(1000)]
    size = examples + examples // 5
    write_parquet(folder / "parquet", images, size)
    write_tars(folder / "webdataset", images, size)
    title = (
        f"{size} synthetic images of 64 bytes in {SHARDS} Parquet files, and in WebDataset shards of {TAR_IMAGES}; "
        f"{examples} examples consumed"
    )
    rows = {}
    for kind, workers in itertools.product(("map-style", "parquet", "webdataset"), (0, 2)):
        place = folder / ("parquet" if kind == "map-style" else kind)
        dataset = load_image_stream(place, streaming=kind != "map-style", cache_dir=str(folder / "cache"))
        options = {"batch_size": 256, "num_workers": workers}
        start = time.perf_counter()
        loader = ViewLoader(dataset, NoDecoding(), **options)
        batches = iter(loader)
        for _ in range(examples // 256):
            next(batches)
        before = time.perf_counter() - start
        state = json.dumps(loader.state_dict())
        expected = [next(batches)["seed"].tolist() for _ in range(5)]
        loader.close()
        start = time.perf_counter()
        again = ViewLoader(dataset, NoDecoding(), **options)
        again.load_state_dict(json.loads(state))
        batches = iter(again)
        found = [next(batches)["seed"].tolist()]
        first = time.perf_counter() - start
        found += [next(batches)["seed"].tolist() for _ in range(4)]
        again.close()
        rows[f"{kind}, {workers} workers"] = {
            "read before, s": before,
            "first batch, s": first,
            "same batches": "yes" if found == expected else "NO",
            "state, kB": len(state) / 1000,
        }
    forms = {"read before, s": ".1f", "first batch, s": ".2f", "same batches": "", "state, kB": ".1f"}
    return Table(title, forms, rows)


if __name__ == "__main__":
    main()
