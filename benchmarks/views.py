"""How fast two views of an image are made, per core, against the bare decode and three other libraries, in one run.

    python benchmarks/views.py [--rounds 5] [--photos FOLDER] [--imagenette FOLDER] [--quick] [--json FILE]

Everything runs on one thread (OpenCV, torch), as it does in a data worker, and is timed by process time, which other
programs on the machine disturb least. Input is the encoded bytes of each JPEG in memory; output is a pair of normalised
float32 views of 224 x 224 with BYOL's probabilities and strengths. A round passes all images through every
contender, in turns of ten images so that all meet the same disturbances; ratios are taken within a round. The table
gives medians over rounds, and the lowest and highest rate.

- "decode": the pixels and nothing else; no pipeline that uses the same decoder can be faster.
- "decode at 1/8": mostly the entropy decoding, which libjpeg does for every row above the last one that a crop needs,
  and which neither a cropped nor a skipped scan line saves.
- "ladder, device mode": what a data worker does when colours, blur and normalisation run on the training device.
- lightly's `BYOLTransform` as its documentation shows it, from PIL images; torchvision v2 on tensors from its own
  decoder, with the 23-pixel blur of the BYOL paper; albumentations on OpenCV images.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import io
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from pictures import DATA, load_images
from PIL import Image
from report import Report, Table, parser_of, spread

from ladder_training.config.image_defaults import IMAGENET_MEAN, IMAGENET_STD
from ladder_training.views.two_views import TwoViewTransform

PACKAGES = ("opencv-python-headless", "torch", "torchvision", "pillow", "lightly", "albumentations")
SIZE = 224
CHUNK = 10
DECODE, REFERENCE = "decode, OpenCV", "lightly BYOLTransform"
Contender = Callable[[bytes, int], object]


def decode_opencv(data: bytes, seed: int) -> np.ndarray:
    """Bytes to RGB by OpenCV."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def decode_eighth(data: bytes, seed: int) -> np.ndarray:
    """Bytes to RGB at an eighth of the size by OpenCV."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)


def decode_pillow(data: bytes, seed: int) -> np.ndarray:
    """Bytes to RGB by Pillow."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def ladder(device_mode: bool) -> Contender:
    """This package."""
    return TwoViewTransform(SIZE, device_mode=device_mode)


def lightly() -> Contender:
    """lightly as documented."""
    from lightly.transforms import BYOLTransform

    transform = BYOLTransform()
    return lambda data, seed: transform(Image.open(io.BytesIO(data)).convert("RGB"))


def torchvision_v2() -> Contender:
    """torchvision's transforms v2 on uint8 tensors, float at the end."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    def view(blur: float, solarize: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=blur),
                v2.RandomSolarize(128, p=solarize),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    first, second = view(1.0, 0.0), view(0.1, 0.2)

    def make(data: bytes, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = decode_jpeg(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), ImageReadMode.RGB)
        return first(image), second(image)

    return make


def albumentations() -> Contender:
    """albumentations on OpenCV images."""
    import albumentations as A
    from albumentations.pytorch import ToTensorV2

    def view(blur: float, solarize: float) -> A.Compose:
        return A.Compose(
            [
                A.RandomResizedCrop((SIZE, SIZE), scale=(0.08, 1.0), interpolation=cv2.INTER_CUBIC),
                A.HorizontalFlip(p=0.5),
                A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
                A.ToGray(p=0.2),
                A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=blur),
                A.Solarize(threshold_range=(0.5, 0.5), p=solarize),
                A.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                ToTensorV2(),
            ]
        )

    first, second = view(1.0, 0.0), view(0.1, 0.2)

    def make(data: bytes, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = decode_opencv(data, seed)
        return first(image=image)["image"], second(image=image)["image"]

    return make


def contenders() -> dict[str, Contender]:
    """All of them, by the names of the table."""
    return {
        DECODE: decode_opencv,
        "decode at 1/8, OpenCV": decode_eighth,
        "decode, Pillow": decode_pillow,
        "ladder, device mode": ladder(device_mode=True),
        "ladder": ladder(device_mode=False),
        REFERENCE: lightly(),
        "albumentations": albumentations(),
        "torchvision v2": torchvision_v2(),
    }


def measure(images: list[bytes], rounds: int) -> dict[str, list[float]]:
    """Images per second of process time, per contender and round."""
    rates: dict[str, list[float]] = {}
    makers = contenders()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    for make in makers.values():
        for data in images[:4]:
            make(data, 0)
    for number in range(rounds):
        seconds = dict.fromkeys(makers, 0.0)
        for first in range(0, len(images), CHUNK):
            for name, make in makers.items():
                start = time.process_time()
                for index, data in enumerate(images[first : first + CHUNK], number * len(images) + first):
                    make(data, index)
                seconds[name] += time.process_time() - start
        for name, spent in seconds.items():
            rates.setdefault(name, []).append(len(images) / spent)
    return rates


def summary(name: str, count: int, rates: dict[str, list[float]], rounds: int) -> Table:
    """Median and range of the rates, and medians of the ratios within a round."""
    rows = {}
    for contender, values in rates.items():
        rows[contender] = {
            "images/s": statistics.median(values),
            "range": spread(values, ".0f"),
            "of decode": statistics.median(a / b for a, b in zip(values, rates[DECODE], strict=True)),
            "x lightly": statistics.median(a / b for a, b in zip(values, rates[REFERENCE], strict=True)),
        }
    columns = {"images/s": ".0f", "range": "", "of decode": ".2f", "x lightly": ".2f"}
    return Table(f"{name}: {count} images, {rounds} rounds, images a second of one core", columns, rows)


def main() -> None:
    """Measure, print a table for each data set, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--photos", type=Path, default=DATA / "photos", help="photographs of about 500 x 375")
    parser.add_argument(
        "--imagenette", type=Path, default=DATA / "imagenette128", help="photographs of about 128 x 128"
    )
    parser.add_argument("--count", type=int, default=240, help="most images of a data set")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.count, options.rounds = 20, 1
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # The views of ladder are drawn from image and round number; the others draw from generators that are seeded with 0.
    report = Report("views", options, PACKAGES)
    for name, folder in (("photos", options.photos), ("imagenette128", options.imagenette)):
        images = load_images(folder, options.count) if folder.is_dir() else []
        if not images:
            print(f"\n{name}: no images in {folder}; give --{name.removesuffix('128')} FOLDER")
            continue
        report.add(summary(name, len(images), measure(images, options.rounds), options.rounds))
    report.finish()


if __name__ == "__main__":
    main()
