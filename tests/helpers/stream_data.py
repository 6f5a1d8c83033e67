"""Tiny numbered images, some broken, in every kind of container, for the tests of the input side."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ladder_training.errors import BadImageError

BAD_EVERY = 17


def numbered(size: int, bad: frozenset[int] = frozenset()) -> datasets.Dataset:
    """`size` "images" whose bytes are their number; those in `bad` start with a mark that `NumberViews` refuses."""
    rows = [{"bytes": (b"bad" if i in bad else b"ok") + str(i).encode(), "path": f"{i}.png"} for i in range(size)]
    return datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))


class NumberViews:
    """A transform that tells which image it got, and with which seed."""

    def __call__(self, image: Any, seed: int | None = None) -> dict[str, torch.Tensor]:
        data = image["bytes"]
        if data.startswith(b"bad"):
            raise BadImageError("marked as broken")
        return {"pixel_values": torch.tensor([int(data[2:])]), "seed": torch.tensor(seed)}


def numbers(batch: dict[str, torch.Tensor]) -> list[int]:
    """The images of a batch of `NumberViews`."""
    return batch["pixel_values"].flatten().tolist()


def write_parquet(folder: Path, dataset: datasets.Dataset, files: int) -> Path:
    """Write a data set as `files` Parquet files of unequal length, in row groups of seven."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.linspace(0, 1, files + 1) ** 1.3 * len(dataset)
    for number, (first, end) in enumerate(zip(cuts[:-1].round(), cuts[1:].round(), strict=True)):
        part = dataset.select(range(int(first), int(end)))
        part.to_parquet(folder / f"part-{number:03d}.parquet", batch_size=7)
    return folder


def encoded(side: int = 12, seed: int = 0, kind: str = "JPEG") -> bytes:
    """Bytes of a real small image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_members(path: Path, members: dict[str, bytes]) -> None:
    """Write a .tar file of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_tar(path: Path, images: list[bytes], first: int = 0, labels: str | None = None) -> None:
    """Write a WebDataset shard; `labels` is None, "cls" or "json"."""
    members: dict[str, bytes] = {}
    for number, data in enumerate(images, start=first):
        members[f"{number:05d}.jpg"] = data
        if labels == "cls":
            members[f"{number:05d}.cls"] = str(number % 3).encode()
        if labels == "json":
            members[f"{number:05d}.json"] = json.dumps({"label": number % 3, "note": "x"}).encode()
    write_members(path, members)
