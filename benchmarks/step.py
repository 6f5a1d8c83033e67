"""What a training step costs, as a share of the bare convolutions, and its peak memory, in one run.

    python benchmarks/step.py [--case resnet18-96 resnet50-224] [--device cuda] [--rounds 7] [--quick] [--json FILE]

lightly's example trains by SGD without momentum; LARS holds 4 bytes of it for every weight, which is most of the
difference in memory between lightly and this package's BYOL.

The limit is the work no BYOL step can avoid (see peers.py). Contenders take the same batches and include everything a
step does: heads, losses, optimizer, target update. One round times every contender once, in turn; the table gives
medians over rounds of the rate against the limit of the same round, and the range. Peak memory is measured in a process
of its own for each contender, above what the libraries take: resident memory on a CPU, torch's allocator on a GPU. On a
GPU the backbone runs in bfloat16, and a round times ten steps. One thread (OMP_NUM_THREADS=1) is timed by its processor
time, which other programs disturb least.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from peers import contenders, make_batch
from report import Report, Table, clock_for, interleaved, parser_of, ratio

CASES = {
    "resnet18-96": ("resnet18", 96, 32, 256),
    "resnet50-224": ("resnet50", 224, 8, 128),
    "resnet18-32": ("resnet18", 32, 4, 4),
}
"""Name -> backbone, size of a view, images per batch on a CPU, and on a GPU."""
MEGABYTE = 1 << 20


def batch_size(case: str, device: str) -> int:
    """Images per batch."""
    return CASES[case][3 if device.startswith("cuda") else 2]


def measure(case: str, device: str, rounds: int, memory: bool) -> Table:
    """Time every contender, and measure its memory."""
    name, size, *_ = CASES[case]
    batch = make_batch(batch_size(case, device), size, device)
    torch.manual_seed(0)
    cuda = device.startswith("cuda")
    repeats = 10 if cuda else 1

    def several(step: Callable) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                step(batch)

        return run

    steps = {key: several(make()) for key, make in contenders(name, device, size).items()}
    clock, time_of = clock_for(device)
    seconds = interleaved(steps, rounds, clock, wait=torch.cuda.synchronize if cuda else lambda: None)
    del steps
    if cuda:
        torch.cuda.empty_cache()
    rows = {}
    for key, times in seconds.items():
        shares = [limit / own for limit, own in zip(seconds["limit"], times, strict=True)]
        rows[key] = {
            "s/step": statistics.median(times) / repeats,
            "of limit": statistics.median(shares),
            "range": f"{min(shares):.2f}-{max(shares):.2f}",
            "time / own BYOL": ratio(seconds, key, "BYOL"),
            "peak MB": peak_memory(case, key, device) / MEGABYTE if memory else None,
        }
    return Table(
        f"{case} on {device}, batch {len(batch['pixel_values'])}, {rounds} rounds, {time_of}",
        {"s/step": ".4f", "of limit": ".2f", "range": "", "time / own BYOL": ".2f", "peak MB": ".0f"},
        rows,
    )


def peak_memory(case: str, name: str, device: str) -> int:
    """Bytes that three steps of a contender take at most, from a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--device", device, "--memory-of", name]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # memory that is given back does not count
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(case: str, name: str, device: str) -> int:
    """The same, in this process."""
    backbone, size, *_ = CASES[case]
    torch.zeros(1, device=device)
    before = resident("VmRSS")
    step, batch = contenders(backbone, device, size)[name](), make_batch(batch_size(case, device), size, device)
    for _ in range(3):
        step(batch)
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes of resident memory, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=["resnet18-96", "resnet50-224"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(measure_memory(options.case[0], options.memory_of, options.device)))
        return
    if options.quick:
        options.case, options.rounds, options.memory = ["resnet18-32"], 2, False
    if options.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
    report = Report("step", options)
    for case in options.case:
        report.add(measure(case, options.device, options.rounds, options.memory))
    report.finish()


if __name__ == "__main__":
    main()
