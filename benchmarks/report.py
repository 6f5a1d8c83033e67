"""What every benchmark shares: turns of equal contenders, ratios within a turn, one table, one JSON.

The JSON says with which command, on which machine and with which versions it was made, and how busy other processes
were meanwhile. `python benchmarks/page.py` writes docs/performance.md from the JSON files in docs/performance/.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "transformers", "datasets", "opencv-python-headless", "lightly", "byol-pytorch")
Rows = dict[str, dict[str, Any]]
Seconds = dict[str, list[float]]


@dataclass
class Table:
    """One table.

    Attributes:
        title: What is measured.
        columns: Heading -> format of its values, as for `format`, such as ".2f".
        rows: Name of the row -> heading -> value; a value that is missing or None is shown as "-".
        notes: Lines below the table.
    """

    title: str
    columns: dict[str, str]
    rows: Rows = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The table as text."""
        first = max(map(len, (*self.rows, "")))
        shown = {
            name: {key: shown_as(row.get(key), form) for key, form in self.columns.items()}
            for name, row in self.rows.items()
        }
        widths = (
            {key: max(len(key), *(len(row[key]) for row in shown.values())) for key in self.columns} if shown else {}
        )
        head = " " * first + "".join(f"  {key:>{widths[key]}}" for key in widths)
        body = [
            f"{name:<{first}}" + "".join(f"  {row[key]:>{widths[key]}}" for key in widths)
            for name, row in shown.items()
        ]
        return [self.title, head, *body, *self.notes]


def shown_as(value: Any, form: str) -> str:
    """A value of a table as text."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def machine_facts(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores, GPU if there is one, load of the last minute, and versions of the installed packages."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    facts: dict[str, Any] = {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
    }
    if "torch" in sys.modules:
        import torch

        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return facts


class OtherWork:
    """How many cores the processes of others keep busy, from now on: all of the machine's work less our own.

    The load average cannot say that: it counts our own threads, and those of the benchmark before this one.
    """

    def __init__(self) -> None:
        self._started = self._now()

    def cores(self) -> float | None:
        """Mean number of cores since the start; None where the system does not tell (no /proc/stat).

        Processes that this one started count as our own once they have ended.
        """
        now = self._now()
        if now is None or self._started is None:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._started, strict=True))
        return max(0.0, (busy - own) / wall) if wall > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds: of the clock, of all processors at work, of our own processes at work."""
        statistics_file = Path("/proc/stat")
        if not statistics_file.exists():
            return None
        user, nice, system, _, _, irq, soft_irq = map(int, statistics_file.read_text().split("\n", 1)[0].split()[1:8])
        busy = (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return time.monotonic(), busy, own.user + own.system + own.children_user + own.children_system


def describe(facts: Mapping[str, Any]) -> str:
    """`machine_facts` in one line, with the work of others where it was measured."""
    threads = f", {facts['threads']} threads of torch" if "threads" in facts else ""
    gpu = f", {facts['gpu']}" if "gpu" in facts else ""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    others = facts.get("others")
    work = f"load {facts['load']:.1f} before" if others is None else f"{others:.1f} cores busy with other work"
    return f"{facts['processor']}, {facts['cores']} cores{threads}{gpu}; {work}; {versions}"


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have: --quick and --json."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small variant, to see that it runs; not for publishing")
    parser.add_argument("--json", type=Path, help="write the result here")
    return parser


class Report:
    """The result of one benchmark.

    Args:
        name: Name of the script.
        options: From `parser_of`.
        packages: Whose versions matter.
    """

    def __init__(self, name: str, options: argparse.Namespace, packages: Sequence[str] = PACKAGES) -> None:
        self._options = options
        self._other_work = OtherWork()
        facts = machine_facts(packages)
        self._result: dict[str, Any] = {
            "benchmark": name,
            "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%d"),
            "quick": bool(options.quick),
            "machine": facts,
            "tables": [],
        }
        print(describe(facts), flush=True)

    def add(self, table: Table) -> None:
        """Print a table, and keep it for the JSON."""
        self._result["tables"].append(asdict(table))
        print("\n" + "\n".join(table.lines()), flush=True)

    def finish(self) -> dict[str, Any]:
        """Write the JSON, if one was asked for, and return what it holds."""
        others = self._other_work.cores()
        if others is not None:
            self._result["machine"]["others"] = round(others, 2)
            print(f"Other work kept {others:.2f} of {self._result['machine']['cores']} cores busy meanwhile.")
        if self._options.json is not None:
            self._options.json.parent.mkdir(parents=True, exist_ok=True)
            self._options.json.write_text(json.dumps(self._result, indent=1) + "\n", encoding="utf-8")
        return self._result


def interleaved(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], Any] = lambda: None,
) -> Seconds:
    """Time every contender once per round, in turn, after one round that is not timed.

    Args:
        contenders: What is timed.
        rounds: Number of timed rounds.
        clock: Seconds; `time.process_time` for work of one process that others disturb.
        wait: Called before each reading of the clock, for a device that works on its own.

    Returns:
        Contender -> seconds in each round.
    """
    for work in contenders.values():
        work()
    seconds: Seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            wait()
            start = clock()
            work()
            wait()
            seconds[name].append(clock() - start)
    return seconds


def clock_for(device: str) -> tuple[Callable[[], float], str]:
    """The clock for work of this process on a device, and its name for the table.

    One thread is timed by its processor time, which other programs disturb least; several threads and a GPU are timed
    by wall time.
    """
    import torch

    if device.startswith("cuda") or torch.get_num_threads() > 1:
        return time.perf_counter, "wall time"
    return time.process_time, "processor time of one thread"


def ratio(seconds: Seconds, name: str, reference: str) -> float:
    """Median over the rounds of the time of `name` divided by the time of `reference` in the same round."""
    return statistics.median(own / other for own, other in zip(seconds[name], seconds[reference], strict=True))


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Lowest and highest value as text."""
    return f"{min(values):{form}}-{max(values):{form}}"
