"""What a training step costs, as a share of the bare convolutions, in one run.

    python benchmarks/step.py [--case resnet18-96 resnet50-224] [--rounds 7] [--json FILE]

The limit is the work no BYOL step can avoid: the backbone alone, in channels-last, forward and backward for two views
and a forward without gradient for the target's two. Contenders take the same batches and include everything a step
does: heads, losses, optimizer, target update. One round times every contender once, in turn; the table gives medians
over rounds of the rate against the limit of the same round, and the range. lightly and byol-pytorch run as their
documentation shows, on torchvision's ResNet of the same shape, without their augmentations.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, ResNetConfig

from ladder_training.trainer.lars import Lars
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

STAGES = ["stage1", "stage2", "stage3", "stage4"]
CASES = {
    "resnet18-96": (
        ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], out_features=STAGES),
        "resnet18",
        96,
        32,
    ),
    "resnet50-224": (ResNetConfig(out_features=STAGES), "resnet50", 224, 8),
}
Step = Callable[[], None]


def make_batch(batch: int, size: int) -> dict[str, Tensor]:
    """Random view pairs with boxes as random resized crops give them."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(batch, 2, 2, generator=generator) * 0.4
    high = 0.6 + torch.rand(batch, 2, 2, generator=generator) * 0.4
    return {
        "pixel_values": torch.randn(batch, 2, 3, size, size, generator=generator),
        "view_boxes": torch.cat([low, high], dim=-1),
        "view_flips": torch.rand(batch, 2, generator=generator) < 0.5,
    }


def bare(backbone: ResNetConfig, batch: dict[str, Tensor]) -> Step:
    """The backbone's convolutions and nothing else."""
    online = AutoBackbone.from_config(backbone).to(memory_format=torch.channels_last).train()
    target = copy.deepcopy(online)
    views = [view.contiguous(memory_format=torch.channels_last) for view in batch["pixel_values"].unbind(1)]

    def step() -> None:
        sum(online(view).feature_maps[-1].mean() for view in views).backward()
        with torch.no_grad():
            for view in views:
                target(view)
        online.zero_grad()

    return step


def ours(config: LadderSiameseConfig, batch: dict[str, Tensor]) -> Step:
    """This package's step: loss, LARS, target update."""
    model = LadderSiameseForPreTraining(config).train()
    optimizer = Lars([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=1e-6)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.99)

    return step


def lightly_byol(name: str, batch: dict[str, Tensor]) -> Step:
    """BYOL from lightly's documentation (lightly-ai.github.io, examples, byol), heads 4096/256 as ours."""
    import torchvision
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    resnet = getattr(torchvision.models, name)()
    width = resnet.fc.in_features
    backbone = nn.Sequential(*list(resnet.children())[:-1])
    projection, prediction = BYOLProjectionHead(width, 4096, 256), BYOLPredictionHead(256, 4096, 256)
    momentum_backbone, momentum_projection = copy.deepcopy(backbone), copy.deepcopy(projection)
    deactivate_requires_grad(momentum_backbone)
    deactivate_requires_grad(momentum_projection)
    modules = nn.ModuleList([backbone, projection, prediction])
    criterion, optimizer = NegativeCosineSimilarity(), torch.optim.SGD(modules.parameters(), lr=0.06)

    def online(x: Tensor) -> Tensor:
        return prediction(projection(backbone(x).flatten(start_dim=1)))

    def target(x: Tensor) -> Tensor:
        return momentum_projection(momentum_backbone(x).flatten(start_dim=1)).detach()

    def step() -> None:
        first, second = batch["pixel_values"].unbind(1)
        update_momentum(backbone, momentum_backbone, m=0.99)
        update_momentum(projection, momentum_projection, m=0.99)
        p0, z0, p1, z1 = online(first), target(first), online(second), target(second)
        (0.5 * (criterion(p0, z1) + criterion(p1, z0))).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def byol_pytorch(name: str, batch: dict[str, Tensor]) -> Step:
    """BYOL from byol-pytorch's README, simplicial embeddings off; the views come through its augmentation hooks."""
    import torchvision
    from byol_pytorch import BYOL

    first, second = batch["pixel_values"].unbind(1)
    learner = BYOL(
        getattr(torchvision.models, name)(),
        image_size=first.shape[-1],
        hidden_layer="avgpool",
        augment_fn=lambda _: first,
        augment_fn2=lambda _: second,
        use_simplicial_embeddings=False,
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)

    def step() -> None:
        loss = learner(first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    return step


def contenders(case: str) -> dict[str, Step]:
    """One step function each; the limit first."""
    backbone, torchvision_name, size, batch_size = CASES[case]
    batch = make_batch(batch_size, size)
    return {
        "limit": bare(backbone, batch),
        "BYOL": ours(LadderSiameseConfig.byol(backbone_config=backbone), batch),
        "Ladder, four levels": ours(LadderSiameseConfig(backbone_config=backbone), batch),
        "lightly BYOL": lightly_byol(torchvision_name, batch),
        "byol-pytorch": byol_pytorch(torchvision_name, batch),
    }


def measure(case: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round."""
    torch.manual_seed(0)
    steps = contenders(case)
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, lowest and highest rate against the limit of the same round; and time against our own BYOL."""
    rows = {}
    for name, times in seconds.items():
        shares = [limit / own for limit, own in zip(seconds["limit"], times, strict=True)]
        against = [own / byol for own, byol in zip(times, seconds["BYOL"], strict=True)]
        rows[name] = {
            "seconds": statistics.median(times),
            "share_of_limit": statistics.median(shares),
            "lowest": min(shares),
            "highest": max(shares),
            "time_against_byol": statistics.median(against),
        }
    return rows


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    results = {}
    print(machine)
    for case in options.case:
        results[case] = summary(measure(case, options.rounds))
        print(f"\n{case}, batch {CASES[case][3]}, {options.rounds} rounds")
        print(f"{'':22}{'s/step':>9}{'of limit':>10}{'range':>14}{'/ own BYOL':>12}")
        for name, row in results[case].items():
            spread = f"{row['lowest']:.2f}-{row['highest']:.2f}"
            print(
                f"{name:22}{row['seconds']:9.3f}{row['share_of_limit']:10.2f}{spread:>14}{row['time_against_byol']:12.2f}"
            )
    if options.json:
        text = json.dumps({"machine": machine, "rounds": options.rounds, "cases": results}, indent=1)
        Path(options.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
