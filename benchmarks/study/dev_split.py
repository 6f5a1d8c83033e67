"""Cut the study's development sets out of the training splits: whatever is chosen is chosen on these alone.

    python benchmarks/study/dev_split.py ../shared/data runs/dev

The test images of a data set stay unseen until the comparison itself. Split with seed 0; prints the counts.
"""

import argparse
from pathlib import Path

import datasets

HELD_OUT = {"imagenette128": 1469, "cifar10": 5000, "pets_trimap": 90, "bccd": 60, "fruit": 48, "pets_head": 50}


def main() -> None:
    """Write OUTPUT/NAME/{train,validation}.parquet for every data set of `HELD_OUT`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="Folder with NAME/train.parquet.")
    parser.add_argument("output", type=Path, help="Folder for the splits.")
    arguments = parser.parse_args()
    for name, count in HELD_OUT.items():
        file = str(arguments.source / name / "train.parquet")
        split = datasets.load_dataset("parquet", data_files=file, split="train").train_test_split(count, seed=0)
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        split["train"].to_parquet(folder / "train.parquet")
        split["test"].to_parquet(folder / "validation.parquet")
        print(f"{name}: {len(split['train'])} to train on, {len(split['test'])} held out")


if __name__ == "__main__":
    main()
