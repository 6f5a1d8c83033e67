"""Run as a process: features of many images through the buffer, kNN and the linear probe; prints the peaks as JSON.

    python -m helpers.feature_memory IMAGES

Every peak is the resident memory above what the process took before the features existed, divided by their size.
"""

import json
import sys
from pathlib import Path

import torch

from ladder_training.evaluation.feature_buffer import FeatureBuffer
from ladder_training.evaluation.features import check_finite
from ladder_training.evaluation.image_classification.linear_probe import fit_probe
from ladder_training.evaluation.options import LinearOptions
from ladder_training.models.feature_rows import feature_sets
from ladder_training.models.neighbour_votes import knn_votes

WIDTHS = {"stage1": 32, "stage2": 64, "stage3": 128, "stage4": 256}
BATCH, CLASSES, SCORED = 1000, 10, 200


def resident(peak: bool) -> int:
    """Bytes of resident memory now, or the most since `forget_peak`."""
    name = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def collect(images: int, size: int | None) -> dict[str, torch.Tensor]:
    """Features whose class can be told from the first channels of each stage."""
    buffer = FeatureBuffer(size)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, images, BATCH):
        labels = torch.arange(first, first + BATCH) % CLASSES
        batch = {name: torch.randn(BATCH, width, generator=generator) for name, width in WIDTHS.items()}
        for values in batch.values():
            values[torch.arange(BATCH), labels] += 8
        buffer.add(batch)
    return buffer.take()


def work(images: int, size: int | None, peaks: dict[str, float] | None) -> None:
    """Everything that an evaluation does with the features; adds to `peaks` if it is given."""
    before = resident(peak=False)

    def note(name: str) -> None:
        if peaks is not None:
            peaks[name] = (resident(peak=True) - before) / (4 * images * sum(WIDTHS.values()))
        forget_peak()

    forget_peak()
    features = collect(images, size)
    check_finite(features)
    note("collect" if size else "collect, size unknown")
    if size is None:
        return
    labels = torch.arange(images) % CLASSES
    score = {name: values[:SCORED] + 0.1 for name, values in features.items()}
    fit = feature_sets(features, normalise=True)
    for name, rows in feature_sets(score, normalise=True).items():
        votes = knn_votes(fit[name], labels, rows, k=5)
        assert (votes.argmax(dim=1) == labels[:SCORED]).float().mean() > 0.9, name
    note("knn")
    options = LinearOptions(epochs=1, train_batch_size=2048, learning_rates=[0.3, 3.0])
    probe = fit_probe(feature_sets(features, normalise=False), labels, CLASSES, options, 0)
    for name, scores in probe.scores(feature_sets(score, normalise=False)).items():
        assert (scores.argmax(dim=1) == labels[:SCORED]).float().mean() > 0.9, name
    note("linear")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(20 * BATCH, 20 * BATCH, None)  # libraries, and memory that they keep
    found: dict[str, float] = {}
    work(int(sys.argv[1]), int(sys.argv[1]), found)
    work(int(sys.argv[1]), None, found)
    print(json.dumps(found))
