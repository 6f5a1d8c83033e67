"""How fast images are read and turned into views, compared with the time of a training step."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..data.iterable import length_of
from ..errors import TrainingStopped, UserError
from ..loading.loader import ViewLoader
from ..loading.progress import progress


def measure_input(
    dataset: Any,
    transform: Callable[..., dict],
    image_column: str | None = None,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    seconds: float = 5.0,
) -> dict | None:
    """Measure the whole input pipeline: reading, decoding, making views, and passing them on.

    Args:
        dataset: A `datasets` object.
        transform: Makes the views.
        image_column: Column of the images; None finds it by its type.
        batch_size: Images per batch; less for a data set of fewer than two batches.
        num_workers: Worker processes.
        seconds: How long to measure.

    Returns:
        {"images_per_second", "images", "seconds", "workers", "cores"}; None if too few images can be read.
    """
    size = length_of(dataset)
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "image_column": image_column,
        "max_bad_fraction": 1.0,
        "shuffle_buffer": 256,
    }
    try:
        loader = ViewLoader(
            dataset, transform, batch_size=min(batch_size, max(1, (size or batch_size) // 2)), **options
        )
        iterator = iter(loader)
        for _ in range(max(1, 2 * num_workers)):  # workers start, and prefetch two batches each
            next(iterator)
        images, elapsed, start = 0, 0.0, time.perf_counter()
        with progress(None, "speed of reading", total=round(seconds)) as bar:
            while elapsed < seconds:
                images += len(next(iterator)["pixel_values"])
                elapsed = time.perf_counter() - start
                bar.update(int(elapsed) - bar.n)
    except (UserError, TrainingStopped):
        return None
    finally:
        loader.close()
    return {
        "images_per_second": images / elapsed,
        "images": images,
        "seconds": elapsed,
        "workers": num_workers,
        "cores": os.cpu_count(),
    }


def measure_step(
    model: Any,
    transform: Any,
    batch_size: int,
    *,
    autocast: Any = None,
    steps: int = 3,
    seconds: float = 10.0,
    most_on_cpu: int = 2,
) -> tuple[float, int]:
    """Time the forward and backward pass on the model's device, with the part of the views that runs there.

    Args:
        model: The pretraining model.
        transform: Makes the views.
        batch_size: Images per step.
        autocast: torch dtype of the mixed precision; None for none.
        steps: Number of steps to time, after one for warming up.
        seconds: Start no further step after this time.
        most_on_cpu: Most images per step on a CPU, where a step may take minutes.

    Returns:
        Median seconds per step, and images per step.
    """
    import torch

    from ..views.device import DeviceViews

    device = next(model.parameters()).device
    images = min(batch_size, most_on_cpu) if device.type == "cpu" else batch_size
    noise = np.random.default_rng(0).integers(0, 256, (2 * transform.size, 2 * transform.size, 3), dtype=np.uint8)
    made = [transform(noise, seed=seed) for seed in range(images)]
    batch = {name: torch.stack([views[name] for views in made]).to(device) for name in made[0]}
    finish = DeviceViews(transform) if transform.device_mode else None
    model.train()
    times: list[float] = []
    for _ in progress(range(steps + 1), "speed of the model"):
        if len(times) >= 2 and sum(times) >= seconds:
            break
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            loss = model(**(batch if finish is None else finish(batch))).loss
        loss.backward()
        loss.item()  # waits until the device has finished
        times.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return float(np.median(times[1:])), images


def compare_with_step(measured: dict | None, step_seconds: float, step_images: int) -> dict:
    """Compare the images per second that the model's step needs with those that the input pipeline delivers.

    Args:
        measured: From `measure_input`.
        step_seconds: Seconds per step.
        step_images: Images per step.

    Returns:
        {"seconds", "images", "images_per_second", "input_is_faster" (None if not measured), "workers_needed"
        (estimated from the speed per worker, None if not measured)}.
    """
    needed = step_images / step_seconds
    given = measured["images_per_second"] if measured else None
    per_worker = given / max(1, measured["workers"]) if measured else None
    return {
        "seconds": step_seconds,
        "images": step_images,
        "images_per_second": needed,
        "input_is_faster": None if given is None else given >= needed,
        "workers_needed": None if not per_worker else int(np.ceil(needed / per_worker)),
    }
