"""How quick `ladder explore` is on many images: python benchmarks/explore.py [--images 50000] [--json FILE] [--quick]

Synthetic embeddings of a ResNet's four stages (64 to 512 channels, 100 groups with noise) and 2,000 different small
JPEG files, each shown for several rows. What is timed is what the page calls, by the clock and in processor time,
which a busy machine lengthens less. "First view" is everything between the file of embeddings and the first gallery;
models and Gradio's own start are not in it. Queries are medians of different images.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from report import describe, machine_facts

from ladder_training.exploration.collection import Collection, read_embeddings
from ladder_training.exploration.page import Page
from ladder_training.exploration.viewer import Viewer

WIDTHS = {"stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512}
FILES, GROUPS, QUERIES = 2000, 100, 30


class Pictures:
    """Stands for the images of a data set: undecoded JPEG files by row."""

    def __init__(self, count: int) -> None:
        noise = np.random.default_rng(0)
        small = noise.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        self.files = [cv2.imencode(".jpg", cv2.resize(one, (256, 192)))[1].tobytes() for one in small]

    def undecoded(self, row: int) -> dict[str, Any]:
        """The stored image of a row."""
        return {"bytes": self.files[row % len(self.files)], "path": None}


def write_embeddings(file: Path, count: int) -> None:
    """Write embeddings as `ladder embed` does."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    draw = np.random.default_rng(0)
    groups = draw.integers(0, GROUPS, count)
    columns: dict[str, Any] = {
        "id": [f"{row:06d}.jpg" for row in range(count)],
        "split": ["train"] * count,
        "label_name": [f"group {group:02d}" for group in groups],
    }
    for stage, width in WIDTHS.items():
        centres = draw.normal(size=(GROUPS, width)).astype(np.float32)
        vectors = centres[groups] + draw.normal(size=(count, width)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        columns[stage] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    parquet.write_table(pa.table(columns), file)


Seconds = tuple[float, float]
"""By the clock, and of all threads of the process."""


def timed(action: Callable[[], Any]) -> tuple[Seconds, Any]:
    """Seconds that a call takes, and its answer."""
    start, busy = time.perf_counter(), time.process_time()
    answer = action()
    return (time.perf_counter() - start, time.process_time() - busy), answer


def median(action: Callable[[int], Any], rows: list[int]) -> Seconds:
    """Median seconds of a call over rows."""
    every = [timed(lambda row=row: action(row))[0] for row in rows]
    return statistics.median(one[0] for one in every), statistics.median(one[1] for one in every)


def measure(count: int) -> dict[str, Seconds]:
    """Time everything on `count` images. Returns what was done and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "embeddings.parquet"
        write_embeddings(file, count)
        found: dict[str, Seconds] = {}
        found["read the file of embeddings"], (ids, splits, labels, vectors) = timed(lambda: read_embeddings(file))
    pictures: Any = Pictures(min(count, FILES))
    collection = Collection(ids, splits, labels, vectors, pictures)
    nothing: Any = None
    page = Page([Viewer("synthetic", collection, nothing, nothing)])
    last = list(WIDTHS)[-1]
    found["build the index of the last stage"], _ = timed(lambda: collection.index(last))
    found["first gallery"], _ = timed(lambda: page.similar(0, 0, last))
    found["first view, in all"] = (sum(one[0] for one in found.values()), sum(one[1] for one in found.values()))
    rows = np.random.default_rng(1).integers(0, count, QUERIES).tolist()
    found["query: a gallery of similar images"] = median(lambda row: page.similar(0, row, last), rows)
    found["query: the search alone"] = median(lambda row: collection.index(last).like(row, 12), rows)
    found["another stage for the first time"], _ = timed(lambda: page.similar(0, 0, "stage2"))
    found["map, first time (PCA)"], _ = timed(lambda: page.map(0, last, "pca", "label", "/look"))
    found["map, by cluster, first time"], _ = timed(lambda: page.map(0, last, "pca", "cluster", "/look"))
    found["map, again"], _ = timed(lambda: page.map(0, last, "pca", "cluster", "/look"))
    found["near duplicates, first time"], _ = timed(lambda: page.duplicates(0, last, 0.98))
    found["outliers, after them"], _ = timed(lambda: page.outliers(0, last))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="2,000 images: shows only that it runs")
    options = parser.parse_args()
    count = 2000 if options.quick else options.images
    found = measure(count)
    machine = machine_facts()
    print(f"{count:,} images, {describe(machine)}")
    print(f"{'seconds':42}{'clock':>10}{'processor':>12}")
    for name, (clock, busy) in found.items():
        print(f"{name:42}{clock:10.3f}{busy:12.3f}")
    if options.json:
        options.json.write_text(json.dumps({"images": count, "machine": machine, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
