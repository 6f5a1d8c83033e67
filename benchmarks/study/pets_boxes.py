"""Make a detection set of natural images out of the Pets trimaps: one box around each animal.

    python benchmarks/study/pets_boxes.py ../shared/data/pets_trimap runs/pets_body

The box is the smallest one that holds every pixel that is not background (the animal and its border band), COCO style
[x, y, width, height] in pixels; the categories are cat and dog. Images, order and splits are the trimaps' own; one
whose trimap shows no animal is left out (Abyssinian_34 of the training images).
"""

import argparse
from pathlib import Path
from typing import Any

import datasets
import numpy as np

IGNORE = 255
CATEGORIES = ["cat", "dog"]
FEATURES = datasets.Features(
    image=datasets.Image(),
    image_id=datasets.Value("string"),
    width=datasets.Value("int32"),
    height=datasets.Value("int32"),
    objects={
        "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        "category": datasets.List(datasets.ClassLabel(names=CATEGORIES)),
        "area": datasets.List(datasets.Value("float32")),
        "iscrowd": datasets.List(datasets.Value("bool")),
    },
)


def boxed(row: dict[str, Any]) -> dict[str, Any]:
    """Width, height and objects of one row of trimaps (`label`: 0 background, 1 cat, 2 dog, 255 border)."""
    label = np.asarray(row["label"])
    rows, columns = np.nonzero(label)
    left, top = float(columns.min()), float(rows.min())
    width, height = columns.max() + 1 - left, rows.max() + 1 - top
    species = label[(label != 0) & (label != IGNORE)].max() - 1
    box = {"bbox": [left, top, width, height], "category": species, "area": width * height, "iscrowd": False}
    return {
        "width": label.shape[1],
        "height": label.shape[0],
        "objects": {name: [value] for name, value in box.items()},
    }


def main() -> None:
    """Write OUTPUT/{train,validation}.parquet; prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="Folder with the trimaps' train.parquet and validation.parquet.")
    parser.add_argument("output", type=Path, help="Folder for the boxes.")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in ("train", "validation"):
        rows = datasets.load_dataset("parquet", data_files=str(arguments.source / f"{name}.parquet"), split="train")
        rows = rows.filter(lambda row: np.asarray(row["label"]).any())
        rows = rows.map(boxed, remove_columns=["label", "breed"], features=FEATURES)
        rows.to_parquet(arguments.output / f"{name}.parquet")
        print(f"{name}: {len(rows)} images, one box each")


if __name__ == "__main__":
    main()
