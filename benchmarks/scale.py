"""Long runs worked out from counted parts and from assumed speeds: the tables of docs/scale.md.

    python benchmarks/scale.py [--share 0.08] [--peak 989] [--pairs-per-core 476] [--json FILE]

Counted, on tensors without values: FLOPs of a pair of views (torch's counter: eight times the forward of the backbone,
for two forward and backward passes and two of the target; heads are left out), parameters, and the bytes of a
checkpoint, of the gradients and of the shared batch-norm statistics. Assumed: the share of the GPU's peak that is
reached, and the speed of the network between nodes. Every time is therefore an estimate, until `benchmarks/gpu.sh` has
measured the first.
"""

from typing import Any

import torch
from report import Report, Table, parser_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoBackbone, ConvNextConfig, ResNetConfig

from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

STAGES = ["stage1", "stage2", "stage3", "stage4"]
IMAGES = 1_281_167  # ImageNet's training images
BACKBONES = {
    "ResNet-50": ResNetConfig(out_features=STAGES),
    "ConvNeXt-B": ConvNextConfig(depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024], out_features=STAGES),
}
# A backward costs two forwards: two views of the trained network and two of the target.
PASSES = 2 * 3 + 2


def count(config: Any) -> dict[str, float]:
    """What one pair of views and one step cost, for the Ladder with four levels."""
    with torch.device("meta"):
        backbone = AutoBackbone.from_config(config)
        with FlopCounterMode(display=False) as counter:
            backbone(torch.empty(1, 3, 224, 224))
        model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=config))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(value.numel() for value in model.state_dict().values())
    norms = [(k, m.num_features) for k, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    sums = sum(2 * c for k, c in norms if not k.startswith("target"))
    return {
        "GFLOP a pair": PASSES * counter.get_total_flops() / 1e9,
        "trained parameters, M": trained / 1e6,
        "checkpoint, MB": 4 * (everything + trained) / 1e6,  # weights of both networks, and momentum
        "gradients, MB": 4 * trained / 1e6,
        "statistics, MB": 4 * 2 * (sum(2 * c + 1 for _, c in norms) + sums) / 1e6,
    }


def main() -> None:
    """Print the tables, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--share", type=float, default=0.08, help="share of the peak that a step reaches (assumed)")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of one GPU in bfloat16 (H100 SXM)")
    parser.add_argument(
        "--pairs-per-core", type=float, default=476.0, help="pairs of views a second and core (views.py)"
    )
    parser.add_argument("--link", type=float, default=50.0, help="GB/s of the network for each GPU (400 Gbit/s)")
    options = parser.parse_args()
    report = Report("scale", options)
    counted = {name: count(config) for name, config in BACKBONES.items()}
    forms = {"GFLOP a pair": ".0f", "trained parameters, M": ".1f", "checkpoint, MB": ".0f"}
    forms |= {"gradients, MB": ".0f", "statistics, MB": ".2f"}
    report.add(Table("counted, Ladder with four levels", forms, counted))
    rows = {}
    for name, row in counted.items():
        pairs = options.share * options.peak * 1e3 / row["GFLOP a pair"]
        for nodes in (1, 8):
            gpus = 8 * nodes
            hours = IMAGES / (pairs * gpus) / 3600
            batch = 4096 // gpus
            rows[f"{name}, {nodes} x 8 GPUs"] = {
                "pairs/s a GPU": pairs,
                "100 epochs, h": 100 * hours,
                "200 epochs, h": 200 * hours,
                "300 epochs, h": 300 * hours,
                "step of 4096, ms": 1e3 * batch / pairs,
                "gradients, ms": 1e3 * 2 * (gpus - 1) / gpus * row["gradients, MB"] / 1e3 / options.link,
                "cores a GPU": pairs / options.pairs_per_core,
                "read, MB/s a node": 8 * pairs * 0.04,
            }
    forms = dict.fromkeys(("100 epochs, h", "200 epochs, h", "300 epochs, h"), ".1f")
    forms = {"pairs/s a GPU": ".0f", **forms, "step of 4096, ms": ".0f", "gradients, ms": ".1f"}
    forms |= {"cores a GPU": ".1f", "read, MB/s a node": ".0f"}
    report.add(
        Table(
            f"estimated: ImageNet at {options.share:.0%} of {options.peak:g} TFLOP/s, {options.link:g} GB/s a GPU",
            forms,
            rows,
            ["Files of 40 kB, as ladder prepare writes them. The exchange of gradients overlaps with the backward."],
        )
    )
    report.finish()


if __name__ == "__main__":
    main()
