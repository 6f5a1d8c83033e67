"""Two processes that train together against two that train side by side alone, on the same cores.

    python benchmarks/scaling.py [--case resnet18-96] [--rounds 5] [--quick] [--json FILE]

"together" is DistributedDataParallel over gloo; "alone" is the same two processes at the same time without it. Their
ratio is what the exchange of gradients costs where nothing else differs. Each process uses half of the cores. Bytes are
counted from the shapes of what a process hands over in a step. Shared batch norm runs on GPUs only (torch refuses it on
a CPU): its bytes are counted, its time is not measured.
"""

import argparse
import os
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from peers import make_batch, resnet
from report import Report, Table, parser_of, ratio, spread
from torch import nn

from ladder_training.trainer.lars import Lars
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

CASES = {"resnet18-96": ("resnet18", 96, 16), "resnet50-224": ("resnet50", 224, 4), "resnet18-32": ("resnet18", 32, 2)}
PROCESSES = 2
METHODS = {"BYOL": LadderSiameseConfig.byol, "Ladder, four levels": LadderSiameseConfig}


def process(rank: int, methods: list[str], case: str, port: int, rounds: int, steps: int, found: Any) -> None:
    """One of the processes: alternate rounds together and alone."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(max(1, (os.cpu_count() or PROCESSES) // PROCESSES))
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    name, size, batch_size = CASES[case]
    batch = make_batch(batch_size, size)
    result: dict[str, Any] = {}
    for method in methods:
        config = METHODS[method](backbone_config=resnet(name))
        torch.manual_seed(0)
        alone = LadderSiameseForPreTraining(config).train()
        with torch.device("meta"):  # only its shapes are counted
            shared = nn.SyncBatchNorm.convert_sync_batchnorm(LadderSiameseForPreTraining(config))
        exchanged = {"gradients": 4 * sum(p.numel() for p in shared.parameters() if p.requires_grad)}
        norms = [(key, m.num_features) for key, m in shared.named_modules() if isinstance(m, nn.SyncBatchNorm)]
        # Two views, 4 bytes: forward 2 statistics and a count of both networks, backward 2 sums of the trained one.
        sums = sum(2 * c for key, c in norms if not key.startswith("target"))
        exchanged["statistics"] = 4 * 2 * (sum(2 * c + 1 for _, c in norms) + sums)
        together = nn.parallel.DistributedDataParallel(LadderSiameseForPreTraining(config).train())
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        for number in range(rounds + 1):
            for key, model in (("together", together), ("alone", alone)):
                optimizer = Lars([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=1e-6)
                dist.barrier()
                start = time.perf_counter()
                for _ in range(steps):
                    model(**batch).loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    getattr(model, "module", model).update_target(0.99)
                dist.barrier()
                if number:  # the first round is not counted
                    seconds[key].append((time.perf_counter() - start) / steps)
        result[method] = {"seconds": seconds, "exchanged": exchanged, "batch": batch_size}
    if rank == 0:
        found.update(result)
    dist.destroy_process_group()


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--case", choices=list(CASES), default="resnet18-96")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--port", type=int, default=29577)
    options = parser.parse_args()
    if options.quick:
        options.case, options.rounds, options.steps = "resnet18-32", 1, 2
    report = Report("scaling", options)
    with multiprocessing.Manager() as manager:
        found = manager.dict()
        work = (
            list(METHODS)[: 1 if options.quick else None],
            options.case,
            options.port,
            options.rounds,
            options.steps,
            found,
        )
        multiprocessing.spawn(process, args=work, nprocs=PROCESSES)
        report.add(table(dict(found), options))
    report.finish()


def table(found: dict[str, Any], options: argparse.Namespace) -> Table:
    """The result of rank 0."""
    rows = {}
    for method, result in found.items():
        seconds, exchanged = result["seconds"], result["exchanged"]
        rows[method] = {
            "together, s/step": statistics.median(seconds["together"]),
            "alone, s/step": statistics.median(seconds["alone"]),
            "alone / together": 1 / ratio(seconds, "together", "alone"),
            "range": spread([a / b for a, b in zip(seconds["alone"], seconds["together"], strict=True)]),
            "gradients, MB/step": exchanged["gradients"] / 1e6,
            "statistics, MB/step": exchanged["statistics"] / 1e6,
        }
    return Table(
        f"{options.case}, {PROCESSES} processes, batch {next(iter(found.values()))['batch']} each, {options.rounds} "
        f"rounds of {options.steps} steps",
        {
            "together, s/step": ".3f",
            "alone, s/step": ".3f",
            "alone / together": ".2f",
            "range": "",
            "gradients, MB/step": ".1f",
            "statistics, MB/step": ".2f",
        },
        rows,
        [
            "Bytes of a step with one micro-batch. Statistics are what shared batch norm exchanges on GPUs; here only",
            "gradients travel.",
        ],
    )


if __name__ == "__main__":
    main()
