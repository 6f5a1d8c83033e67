"""Images for the benchmarks: those of a folder, or noise with the spectrum of photographs where there is no folder."""

import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def load_images(folder: Path, count: int) -> list[bytes]:
    """Encoded images of a folder with Parquet files (an `image` column) or image files, at most `count`."""
    images: list[bytes] = []
    for file in sorted(folder.rglob("*.parquet")):
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=count, columns=["image"]):
            images.extend(row["bytes"] for row in batch.column("image").to_pylist())
            if len(images) >= count:
                return images[:count]
    for file in sorted(folder.rglob("*.jp*g"))[: count - len(images)]:
        images.append(file.read_bytes())
    return images


def noise_images(count: int, height: int = 375, width: int = 500) -> list[bytes]:
    """JPEG files of noise with the spectrum of a photograph; the same every time."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -1.3
    images = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        grey, *colours = (
            np.fft.irfft2(amplitude * np.exp(2j * np.pi * generator.random(amplitude.shape)), s=(height, width))
            for _ in range(4)
        )
        picture = np.stack([grey + 0.3 * colour for colour in colours], axis=-1)
        pixels = np.clip(128 + 50 * picture / picture.std(), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    return images


def photographs(folder: Path, count: int) -> tuple[list[bytes], str]:
    """At most `count` images of a folder, or noise if it has none; and what they are, for the table."""
    images = load_images(folder, count) if folder.is_dir() else []
    if images:
        return images, f"{len(images)} images of {folder.name}"
    return noise_images(count), f"{count} images of noise with the spectrum of photographs (no images in {folder})"


def enlarged(data: bytes, width: int, height: int, quality: int = 92) -> bytes:
    """A JPEG file of the image at another size, as a large photograph; turned if it is upright."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels.shape[0] > pixels.shape[1]:
        width, height = height, width
    large = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].data)
