"""Do the detection and segmentation protocols work at all? An untrained backbone must learn something with them.

    python benchmarks/evaluation_sanity.py --data FOLDER [--tasks detection/fruit segmentation/camvid ...] [--threads 1]

FOLDER holds one folder of Parquet files per data set. Prints each task's table (with wall time, images and seed), and
the machine. The backbone is a ResNet of four basic blocks, 32 to 256 channels, with random weights: what these figures
show is the protocol, not any pretraining. One seed, so no spread is known.
"""

import argparse

from ladder_training import evaluation
from ladder_training.runs.run_folder import hardware, versions

TASKS = (
    "detection/fruit",
    "detection/pets_head",
    "detection/bccd",
    "segmentation/pets_trimap",
    "segmentation/camvid",
    "knn/cifar10",
    "linear/cifar10",
)
SETTINGS = {"knn": {"image_size": 32}, "linear": {"image_size": 32}}


def random_backbone(seed: int) -> object:
    """The untrained ResNet that is evaluated."""
    import torch
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return ResNetBackbone(config).eval()


def main() -> None:
    """Run the tasks one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="task/data set pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    print(f"{hardware()}, {arguments.threads} thread(s), torch {versions()['torch']}, seed {arguments.seed}\n")
    backbone = random_backbone(arguments.seed)
    for entry in arguments.tasks:
        task, name = entry.split("/", 1)
        result = getattr(evaluation, task)(
            backbone, f"{arguments.data}/{name}", seed=arguments.seed, **SETTINGS.get(task, {})
        )
        print(result.table(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
