"""Damaged and odd images by the thousand: no crash, no hang, each one either used or listed."""

import io
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ladder_training.errors import BadImageError
from ladder_training.loading.loader import ViewLoader
from ladder_training.views.two_views import TwoViewTransform

LONGEST = 20.0
"""Seconds of the processor, not of the clock, for one image: other work on the machine does not count. A damaged header
may ask for up to 100 million pixels, which takes about two."""


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    """Whole files of many kinds and modes."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (61, 83, 4), dtype=np.uint8)
    smooth = Image.fromarray(noise[:6, :8, :3]).resize((120, 90), Image.Resampling.BICUBIC)
    grey, wide = smooth.convert("L"), generator.integers(0, 65536, (40, 50)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    strip, tall = np.zeros((1, 5000, 3), np.uint8), np.zeros((5000, 1, 3), np.uint8)
    frames = [smooth, smooth.transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey.convert("RGB")]
    animated = {"save_all": True, "append_images": frames[1:]}
    return {
        "jpeg": save(smooth, "JPEG", quality=90),
        "jpeg 4:4:4": save(Image.fromarray(noise[..., :3]), "JPEG", quality=60, subsampling=0),
        "jpeg progressive": save(smooth, "JPEG", progressive=True),
        "jpeg restarts": save(smooth, "JPEG", restart_marker_blocks=2),
        "jpeg grey": save(grey, "JPEG"),
        "jpeg CMYK": save(smooth.convert("CMYK"), "JPEG"),
        "jpeg rotated": save(smooth, "JPEG", exif=exif),
        "jpeg 5000 x 1": save(Image.fromarray(strip), "JPEG"),
        "jpeg 1 x 5000": save(Image.fromarray(tall), "JPEG"),
        "png": save(smooth, "PNG"),
        "png RGBA": save(Image.fromarray(noise), "PNG"),
        "png LA": save(Image.fromarray(noise[..., :2]), "PNG"),
        "png palette": save(smooth.convert("P"), "PNG", transparency=3),
        "png 1 bit": save(grey.convert("1"), "PNG"),
        "png 16 bits": save(Image.fromarray(wide), "PNG"),
        "png 1 x 5000": save(Image.fromarray(tall), "PNG"),
        "png animated": save(frames[0], "PNG", **animated),
        "gif animated": save(frames[0], "GIF", **animated),
        "webp": save(smooth, "WEBP"),
        "webp animated": save(frames[0], "WEBP", **animated),
        "tiff": save(smooth, "TIFF"),
        "tiff 16 bits": save(Image.fromarray(wide), "TIFF"),
        "tiff float": save(Image.fromarray(wide.astype(np.float32)), "TIFF"),
        "tiff CMYK": save(smooth.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "bmp": save(smooth, "BMP"),
        "ppm": save(smooth, "PPM"),
        "tga": save(Image.fromarray(noise), "TGA"),
        "jpeg 2000": save(smooth, "JPEG2000"),
        "ico": save(smooth, "ICO"),
    }


def mutate(data: bytes, generator: np.random.Generator, others: list[bytes]) -> bytes:
    """One of nine kinds of damage; one in ten files stays whole."""
    damaged = bytearray(data)
    kind, size = generator.integers(10), len(data)
    if kind == 0:  # a few flipped bits anywhere
        for place in generator.integers(0, size, generator.integers(1, 20)):
            damaged[place] ^= 1 << int(generator.integers(8))
    elif kind == 1:  # flipped bits in the header, where sizes and types are
        for place in generator.integers(0, min(size, 64), generator.integers(1, 4)):
            damaged[place] ^= 1 << int(generator.integers(8))
    elif kind == 2:
        del damaged[int(generator.integers(0, size)) :]
    elif kind == 3:  # another format's beginning
        other = others[generator.integers(len(others))]
        length = int(generator.integers(2, 24))
        damaged[:length] = other[:length]
    elif kind == 4:  # a hole of zeros
        start, length = int(generator.integers(size)), int(generator.integers(1, 200))
        damaged[start : start + length] = bytes(len(damaged[start : start + length]))
    elif kind == 5:  # a piece cut out or doubled
        start, length = int(generator.integers(size)), int(generator.integers(1, 50))
        damaged[start : start + length] = damaged[start : start + length] * int(generator.choice([0, 2]))
    elif kind == 6:  # the end of another file
        other = others[generator.integers(len(others))]
        damaged[int(generator.integers(size)) :] = other[len(other) // 2 :]
    elif kind == 7:  # noise behind a good beginning
        start = int(generator.integers(size))
        damaged[start:] = generator.bytes(size - start)
    elif kind == 8:  # largest and smallest numbers in the header
        start = int(generator.integers(0, min(size, 200)))
        damaged[start : start + 4] = bytes([int(generator.choice([0, 255, 127]))]) * len(damaged[start : start + 4])
    return bytes(damaged)


def mutated(count: int) -> list[bytes]:
    generator = np.random.default_rng(1)
    files = list(originals().values())
    return [mutate(files[number % len(files)], generator, files) for number in range(count)]


class Timed(TwoViewTransform):
    """Takes each image's time; an image that takes too long is an error of ours, not a bad image."""

    def __call__(self, image: Any, seed: int | None = None) -> dict[str, torch.Tensor]:
        start = time.thread_time()
        try:
            return {**super().__call__(image, seed), "seed": torch.tensor(seed)}
        finally:
            if time.thread_time() - start > LONGEST:
                raise AssertionError(f"an image took {time.thread_time() - start:.0f} s of the processor")


def check(images: list[bytes], folder: Path, workers: int, streaming: bool, device_mode: bool) -> tuple[int, Counter]:
    """One pass over the images: number used, and reasons of those listed."""
    rows = [{"bytes": data, "path": f"{number}.img"} for number, data in enumerate(images)]
    dataset = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    listed = folder / f"bad-{workers}-{streaming}.jsonl"
    loader = ViewLoader(
        dataset.to_iterable_dataset(num_shards=5) if streaming else dataset,
        Timed(size=24, device_mode=device_mode),
        batch_size=1,
        num_workers=workers,
        max_bad_fraction=1.0,
        bad_images_file=listed,
        shuffle_buffer=64,
    )
    used = set()
    for batch in loader:
        if loader.state_dict()["position"].get("pass", 0) > 0 or loader.passes > 1:
            break
        assert torch.isfinite(batch["pixel_values"].float()).all()
        used.add(int(batch["seed"]))
        if loader.passes == 1:
            break
    loader.close()
    records = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    assert all(record["reason"] and "\n" not in record["reason"] for record in records)
    assert len({record["key"] for record in records}) == len(records)
    assert len(used) + len(records) == len(images), "an image was neither used nor listed"
    return len(used), Counter(record["reason"] for record in records)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_takes_too_long_is_noticed(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LONGEST", 0.0)
    with pytest.raises(Exception, match="an image took 0 s of the processor"):
        check(list(originals().values())[:3], tmp_path, workers=workers, streaming=False, device_mode=False)


def test_whole_files_of_every_kind_are_used(tmp_path: Path) -> None:
    images = list(originals().values())
    (tmp_path / "bad-0-False.jsonl").touch()
    assert check(images, tmp_path, workers=0, streaming=False, device_mode=False) == (len(images), Counter())


@pytest.mark.parametrize(("workers", "streaming"), [(0, False), (2, True)])
def test_some_hundred_mutated_images(tmp_path: Path, workers: int, streaming: bool) -> None:
    used, reasons = check(mutated(580), tmp_path, workers, streaming, device_mode=streaming)
    assert used > 100
    assert reasons.total() > 100
    assert len(reasons) > 10


@pytest.mark.slow
def test_ten_thousand_mutated_images(tmp_path: Path) -> None:
    images = mutated(10_000)
    used, reasons = check(images, tmp_path, workers=2, streaming=False, device_mode=False)
    print(f"{used} used, {reasons.total()} listed: {reasons.most_common(12)}")
    assert used + reasons.total() == 10_000
    assert used > 2000
    assert reasons.total() > 2000


def test_the_same_images_are_used_whatever_the_seed_of_the_crops(tmp_path: Path) -> None:
    """Whether a file is good is a property of the file, not of the crop that happened to be drawn."""
    transform = TwoViewTransform(size=24)
    for data in mutated(290):
        outcomes = set()
        for seed in range(3):
            try:
                transform(data, seed=seed)
                outcomes.add("used")
            except BadImageError as error:
                outcomes.add(str(error))
        assert len(outcomes) == 1, outcomes
