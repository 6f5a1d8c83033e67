"""How long a command takes before it works, and what it imports for that.

    python benchmarks/startup.py [--rounds 5] [--quick] [--json FILE]

Each command runs in a process of its own, in turn; processor time is that of the process, which other programs on the
machine disturb least. "python -c pass" is what an empty process costs.
"""

import resource
import statistics
import subprocess
import sys
import time

from report import Report, Table, parser_of

LADDER = [sys.executable, "-m", "ladder_training"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "ladder --help": [*LADDER, "--help"],
    "ladder pretrain --help": [*LADDER, "pretrain", "--help"],
    "ladder evaluate knn --help": [*LADDER, "evaluate", "knn", "--help"],
    "ladder prepare, a mistake": [*LADDER, "prepare", "--dataset", "./gone", "--output", "gone"],
    "import ladder_training": [sys.executable, "-c", "import ladder_training"],
    "import torch, transformers": [sys.executable, "-c", "import torch, transformers"],
}


def run(command: list[str]) -> tuple[float, float]:
    """(seconds, seconds of processor time) of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    report = Report("startup", options)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            times = run(command)
            if number or options.quick:  # the first round fills the file cache
                found[name].append(times)
    rows = {
        name: {
            "seconds": statistics.median(wall for wall, _ in times),
            "processor seconds": statistics.median(used for _, used in times),
        }
        for name, times in found.items()
    }
    report.add(Table(f"{rounds} rounds", {"seconds": ".2f", "processor seconds": ".2f"}, rows))
    report.finish()


if __name__ == "__main__":
    main()
