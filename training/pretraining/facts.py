"""What a plan depends on, measured: the images, the machine, the costs of a network, and the speed of training."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .planner import Gpu, ImageFacts, MachineFacts, NetworkCosts

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseConfig

SAMPLE = 48
"""Images that are decoded to learn the usual size."""
_CGROUP = Path("/sys/fs/cgroup")


def measure_images(
    names: Sequence[str], *, monitored: bool = False, exactly: bool = False, **settings: Any
) -> ImageFacts:
    """Look at a sample of the images of one or more data sets.

    Args:
        names: As `load_image_stream` takes them.
        monitored: Whether the run holds out some of them to monitor itself with.
        exactly: Whether the beginning of a stream is read to count these, as the run does.
        **settings: Other arguments of `load_image_stream` (`split`, `streaming`, `revision`, `image_column`).

    Raises:
        UserError: a data set does not exist, or holds no images that can be read.
    """
    from ..data.held_out import count_held_out
    from ..data.mixing import mix_streams
    from ..data.sources import load_image_stream
    from ..errors import UserError
    from ..inspection.data import inspect_one

    counts, sides, sizes, datasets = [], [], [], []
    for name in names:
        dataset = load_image_stream(name, **settings)
        datasets.append(dataset)
        report, _ = inspect_one(dataset, settings.get("image_column"), limit=SAMPLE)
        if report["width"] is None:
            raise UserError(f"{name}: none of {report['looked_at']} images can be read, so no run can be planned")
        counts.append(report["images"])
        sides.append(min(report["width"]["median"], report["height"]["median"]))
        sizes.append(report["bytes"])
    held_out = 0
    if monitored and None not in counts:
        held_out = count_held_out(mix_streams(datasets), image_column=settings.get("image_column"), read=exactly)
    return ImageFacts(
        name=names[0] if len(names) == 1 else " and ".join(names),
        count=None if None in counts else sum(counts),
        side=int(min(sides)),
        file_bytes=max(sizes),
        streaming=bool(settings.get("streaming")),
        held_out=held_out,
    )


def measure_machine() -> MachineFacts:
    """Measure what this process may use: cores, main memory within the limits of its container, and GPUs."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(facts.name, facts.total_memory, torch.cuda.is_bf16_supported()))
    return MachineFacts(_cores(), _memory(), tuple(gpus))


def measure_network(config: "LadderSiameseConfig", size: int) -> NetworkCosts:
    """Count the parameters of a network and the bytes that a step keeps for its backward pass; nothing is computed.

    Args:
        config: Of the pretraining model.
        size: Height and width of a view, in pixels.
    """
    import torch

    from modeling_ladder import LadderSiameseForPreTraining

    images = 4
    with torch.device("meta"):
        model = LadderSiameseForPreTraining(config).train()
        pixels = torch.empty(images, 2, 3, size, size)
        boxes, flips = torch.empty(images, 2, 4), torch.empty(images, 2, dtype=torch.bool)
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(pixel_values=pixels, view_boxes=boxes, view_flips=flips).loss
    del loss
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    activations = sum(storage.nbytes() for key, storage in kept.items() if key not in weights)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return NetworkCosts(trained, math.ceil(activations / (images * size**2)))


def measure_speed(dataset: Any, model: Any, transform: Any, batch_size: int, workers: int, autocast: Any) -> float:
    """Measure the images per second of reading and training together, in a few seconds.

    Args:
        dataset: A `datasets` object.
        model: The pretraining model, on its device.
        transform: Makes the views.
        batch_size: Images per step.
        workers: Worker processes of the run.
        autocast: torch dtype of mixed precision, or None.
    """
    from ..inspection.speed import measure_input, measure_step

    seconds, images = measure_step(model, transform, batch_size, autocast=autocast, steps=2, most_on_cpu=16)
    each = seconds / images
    read = measure_input(dataset, transform, batch_size=min(batch_size, 16), seconds=2.0)
    if read is not None:
        reading = 1 / read["images_per_second"]  # of one process
        each = max(each, reading / workers) if workers else each + reading
    return 1 / each


def _cores() -> int:
    """Count the cores that this process may use, within the limits of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _memory() -> int:
    """Return the main memory in bytes, within the limits of the container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return memory
    return memory if limit == "max" else min(memory, int(limit))
