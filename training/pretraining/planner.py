"""The plan of a run without a recipe: a pure function of what was measured of the images and the machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.backbones import BACKBONES, named_backbone
from ..data.held_out import MOST
from ..loading.passes import batches_of_pass, steps_of_passes

PLAN = "plan"
"""Name of the recipe of a planned run."""
RECIPE_FILE = "recipe.yaml"
"""Where a planned run keeps its recipe, in its folder."""
DIGITS = "digits"
"""Name of the data set that comes with scikit-learn."""
DIGITS_VIEWS = {"min_scale": 0.4, "flip": 0.0, "blur": [0.0, 0.0], "solarize": [0.0, 0.0]}
"""Its views, as in the recipe of its name: a mirrored 2 is no 2, and eight pixels have nothing to blur."""
GIB = 2**30

# Memory that does not depend on the plan: an imported torch with its data sets, a worker process, and the workspace
# that kernels need on a device.
PROCESS, WORKER, WORKSPACE = round(1.2 * GIB), round(0.4 * GIB), GIB
BATCHES = 4
"""Batches that a pass should hold."""
DEVICE_SHARE, HOST_SHARE = 0.85, 0.8
"""Shares of the memory that a plan may use."""
BF16_SHARE = 0.6
"""Activations under bfloat16 as a share of float32: half, and what stays in float32."""


@dataclass(frozen=True)
class ImageFacts:
    """What was measured of the images.

    Attributes:
        name: The data set, as the user named it.
        count: Number of images; None if a stream does not declare it.
        side: Median of the shorter side, in pixels.
        file_bytes: Median size of a file.
        streaming: Whether they are read while training.
        held_out: Number of them that monitoring holds out, and that are not trained on.
    """

    name: str
    count: int | None
    side: int
    file_bytes: int
    streaming: bool = False
    held_out: int = 0

    @property
    def trained(self) -> int | None:
        """Number of images in a pass; None if a stream does not declare how many it has."""
        return None if self.count is None else self.count - self.held_out


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: Its product name.
        memory: In bytes.
        bf16: Whether it computes in bfloat16.
    """

    name: str
    memory: int
    bf16: bool = True


@dataclass(frozen=True)
class MachineFacts:
    """What this process may use of the machine.

    Attributes:
        cores: Processor cores.
        memory: Main memory in bytes.
        gpus: The GPUs, which are taken to be equal.
    """

    cores: int
    memory: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class NetworkCosts:
    """What training a network takes.

    Attributes:
        parameters: Trained parameters, heads included.
        bytes_per_pixel: Bytes that a step in float32 keeps for its backward pass, for both views of one image, per
            pixel of a view.
    """

    parameters: int
    bytes_per_pixel: float


# Measured by `costs.measured_costs` at 224 pixels with the heads of `heads` and four levels.
COSTS: Mapping[str, NetworkCosts] = {
    "resnet-tiny": NetworkCosts(2_535_840, 358),
    "resnet18": NetworkCosts(17_685_056, 922),
    "resnet50": NetworkCosts(41_055_296, 3474),
    "convnext-tiny": NetworkCosts(38_364_576, 4398),
    "swin-tiny": NetworkCosts(38_065_338, 4383),
    "vit-small": NetworkCosts(31_161_600, 3121),
    "dinov2-small": NetworkCosts(31_542_912, 4232),
}


@dataclass(frozen=True)
class Plan:
    """A complete recipe with its reasons.

    Attributes:
        values: Fields of the recipe, the user's own included.
        images: The facts that led to it.
        machine: The facts that led to it.
        steps: Optimizer steps; None if they cannot be known before the run.
        global_batch: Images per optimizer step, over all devices.
        device_bytes: Memory that each GPU needs; 0 without a GPU.
        host_bytes: Main memory that all processes need together.
        reasons: Row of the printed plan -> why.
    """

    values: dict[str, Any]
    images: ImageFacts
    machine: MachineFacts
    steps: int | None
    global_batch: int
    device_bytes: int
    host_bytes: int
    reasons: dict[str, str]

    @property
    def fits(self) -> bool:
        """Whether the plan stays within the memory of the machine."""
        device = not self.machine.gpus or self.device_bytes <= self.machine.gpus[0].memory
        return device and self.host_bytes <= self.machine.memory


def make_plan(
    images: ImageFacts, machine: MachineFacts, given: Mapping[str, Any], costs: NetworkCosts | None = None
) -> Plan:
    """Choose every setting that the user has not given.

    Args:
        images: What was measured of the images.
        machine: What was measured of the machine.
        given: Fields that the user has given. They stay as they are, and the rest is chosen to go with them.
        costs: Of the network that `given` names; None takes those of a named backbone from `COSTS`.
    """
    own_network = any(given.get(name) is not None for name in ("backbone", "backbone_config", "from_model"))
    backbone = None if own_network else _backbone(images, machine)
    name = given.get("backbone") or backbone
    costs = costs or COSTS[table_name(name) or "resnet50"]
    size = int(given.get("image_size") or _image_size(images, machine, name))
    precision = bool(machine.gpus and machine.gpus[0].bf16)
    bf16 = bool(given.get("bf16", precision))
    devices = max(1, len(machine.gpus))
    optimizer = given.get("optimizer")
    batch = int(given.get("per_device_train_batch_size") or 0) or _batch(images, machine, size, costs, bf16)
    accumulation = int(given.get("gradient_accumulation_steps") or 1)
    global_batch = batch * accumulation * devices
    optimizer = optimizer or ("lars" if global_batch >= 1024 else "adamw")
    steps = _steps(images, machine, batch, accumulation, given)
    workers, buffer = _workers(images, machine, size, batch, costs, given)

    chosen: dict[str, Any] = {"dataset": images.name, "image_size": size}
    if images.streaming:
        chosen |= {"streaming": True, "shuffle_buffer": buffer}
    if size <= 128:
        chosen |= {"min_scale": 0.2, "max_sigma": 0.9}
    if images.name == DIGITS:
        chosen |= DIGITS_VIEWS
    if backbone is not None:
        chosen["backbone"] = backbone
    chosen |= {"method": "ladder"}
    if given.get("from_model") is None:
        chosen |= heads(name)
    chosen |= {"base_momentum": _momentum(steps), "optimizer": optimizer, **_rate(optimizer, name, given)}
    chosen |= {"weight_decay": 1e-6 if optimizer == "lars" else 1e-4, "per_device_train_batch_size": batch}
    if given.get("num_train_epochs") is None:
        chosen["max_steps"] = steps
    if given.get("warmup_epochs") is None:
        chosen["warmup_steps"] = max(1, min(2000, (steps or 2000) // 20))
    chosen |= {"logging_steps": max(1, min(50, (steps or 2000) // 40)), "save_steps": _save_steps(steps)}
    if bf16:
        chosen["bf16"] = True
    chosen["dataloader_num_workers"] = workers
    values = {**chosen, **{key: value for key, value in given.items() if value is not None}}
    compute = _compute_bytes(batch, size, costs, bf16, values["optimizer"])
    return Plan(
        values=values,
        images=images,
        machine=machine,
        steps=steps,
        global_batch=global_batch,
        device_bytes=compute if machine.gpus else 0,
        host_bytes=_host_bytes(images, machine, size, workers, buffer) + (0 if machine.gpus else compute),
        reasons=_reasons(images, machine, given, name, size, global_batch),
    )


def table_name(name: str | None) -> str | None:
    """Return the spelling of a named backbone in `COSTS`; None for any other network."""
    if name is None:
        return None
    plain = name.lower().replace("_", "-")
    found = (known for known in BACKBONES if known.replace("-", "") == plain.replace("-", ""))
    return next(found, None)


def _is_transformer(name: str | None) -> bool:
    """Whether a backbone by name is made of patches, so that view sizes must be multiples of them."""
    values = named_backbone(name) if name is not None and table_name(name) else None
    return values is not None and "patch_size" in values


def _backbone(images: ImageFacts, machine: MachineFacts) -> str:
    """Choose the network by the number of images, and by what the machine computes in a day."""
    if not machine.gpus:
        return "resnet-tiny"
    few = images.count is not None and images.count < 50_000
    return "resnet18" if few or machine.gpus[0].memory < 12 * GIB else "resnet50"


def _image_size(images: ImageFacts, machine: MachineFacts, name: str | None) -> int:
    """Choose the largest usual size that most images have without being enlarged."""
    if _is_transformer(name) or name is None or table_name(name) is None:
        sizes: tuple[int, ...] = (112, 224)  # multiples of 14 and of 16
    else:
        sizes = (32, 48, 64, 96, 128, 160, 224)
    limit = 96 if not machine.gpus else 160 if table_name(name) == "resnet18" else 224
    return max((size for size in sizes if size <= min(limit, images.side)), default=sizes[0])


def _batch(images: ImageFacts, machine: MachineFacts, size: int, costs: NetworkCosts, bf16: bool) -> int:
    """Choose the largest power of two that fits into memory and that a pass holds four times; of few images, once."""
    batch, least = (256, 8) if machine.gpus else (64, 8)
    devices = max(1, len(machine.gpus))
    memory = machine.gpus[0].memory * DEVICE_SHARE if machine.gpus else machine.memory * HOST_SHARE - 2 * PROCESS
    while batch > least and _compute_bytes(batch, size, costs, bf16, "adamw") > memory:
        batch //= 2
    if images.count is not None and images.trained is not None:
        while batch > least and batch * devices * BATCHES > images.count:
            batch //= 2
        while batch > 2 and batch * devices > images.trained:
            batch //= 2
    return batch


def _steps(
    images: ImageFacts, machine: MachineFacts, batch: int, accumulation: int, given: Mapping[str, Any]
) -> int | None:
    """Choose the length of the run; a given length wins, and passes are counted as training does."""
    if (given.get("max_steps") or 0) > 0:
        return int(given["max_steps"])
    count, passes = images.count, given.get("num_train_epochs")
    devices = max(1, len(machine.gpus))
    if passes is not None:
        if images.trained is None:
            return None
        shape: dict[str, int] = {"batch_size": batch, "accumulation": accumulation, "world_size": devices}
        batches = batches_of_pass(images.trained, streaming=images.streaming, **shape)
        return max(1, steps_of_passes(passes, batches, accumulation))
    global_batch = batch * accumulation * devices
    if not machine.gpus:
        seen = 64_000 if count is None else min(64_000, 100 * count)
    elif count is None:
        seen = 25_600_000
    else:
        seen = count * (400 if count < 10_000 else 200 if count < 200_000 else 100)
    return max(100, seen // global_batch)


def _workers(
    images: ImageFacts, machine: MachineFacts, size: int, batch: int, costs: NetworkCosts, given: Mapping[str, Any]
) -> tuple[int, int]:
    """Choose the workers of each process and the shuffle buffer of a stream, within main memory."""
    devices, buffer = max(1, len(machine.gpus)), int(given.get("shuffle_buffer") or 2048)
    # Without a GPU the network needs the cores itself.
    workers = max(1, min(16, machine.cores // devices - 1)) if machine.gpus else min(4, machine.cores // 4)
    if given.get("dataloader_num_workers") is not None:
        workers = int(given["dataloader_num_workers"])
    compute = 0 if machine.gpus else _compute_bytes(batch, size, costs, False, "adamw")

    def too_much() -> bool:
        needed = _host_bytes(images, machine, size, workers, buffer) + compute
        return needed > machine.memory * HOST_SHARE

    while images.streaming and "shuffle_buffer" not in given and buffer > 128 and too_much():
        buffer //= 2
    while "dataloader_num_workers" not in given and workers > 0 and too_much():
        workers -= 1
    return workers, buffer


def _compute_bytes(batch: int, size: int, costs: NetworkCosts, bf16: bool, optimizer: str) -> int:
    """Memory of a training step: both networks, gradients, the optimizer's state, activations, workspace."""
    copies = 3 + (2 if optimizer == "adamw" else 1)
    activations = batch * size**2 * costs.bytes_per_pixel * (BF16_SHARE if bf16 else 1)
    return round(4 * copies * costs.parameters + activations + WORKSPACE)


def _host_bytes(images: ImageFacts, machine: MachineFacts, size: int, workers: int, buffer: int) -> int:
    """Main memory of all processes, without the training step itself."""
    devices = max(1, len(machine.gpus))
    held_out = 3 * size**2 * min(MOST, images.count or MOST)
    buffers = max(1, workers) * buffer * images.file_bytes if images.streaming else 0
    return devices * (PROCESS + workers * WORKER + buffers + held_out)


def heads(name: str | None) -> dict[str, Any]:
    """Return the sizes of the heads that go with a backbone."""
    if table_name(name) == "resnet-tiny":
        return {"projection_hidden_size": 512, "projection_size": 128, "local_projection_hidden_size": 128}
    if table_name(name) == "resnet18":
        return {"projection_hidden_size": 2048, "projection_size": 256}
    return {"projection_hidden_size": 4096, "projection_size": 256}


def _momentum(steps: int | None) -> float:
    """Choose tau at the start: a shorter run needs a faster target."""
    if steps is not None and steps <= 2000:
        return 0.97
    return 0.99 if steps is not None and steps <= 20_000 else 0.996


def _rate(optimizer: str, name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the learning rate, unless one is given."""
    if given.get("learning_rate") is not None or given.get("base_learning_rate") is not None:
        return {}
    if optimizer == "adamw":
        careful = given.get("from_model") is not None or _is_transformer(name)
        return {"learning_rate": 5e-4 if careful else 2e-3}
    return {"base_learning_rate": 0.45 if optimizer == "lars" else 0.05}


def _save_steps(steps: int | None) -> int:
    """Steps between checkpoints: ten of a run, at most 2,000 apart."""
    return max(10, min(2000, (steps or 20_000) // 10))


def _reasons(
    images: ImageFacts,
    machine: MachineFacts,
    given: Mapping[str, Any],
    name: str | None,
    size: int,
    global_batch: int,
) -> dict[str, str]:
    """Say why each row of the plan is as it is."""
    yours = "as you said"
    reasons = {"backbone": yours, "view size": yours, "batch": yours, "steps": yours, "rate": yours, "workers": yours}
    if not any(given.get(field) is not None for field in ("backbone", "backbone_config", "from_model")):
        why = {
            "resnet-tiny": "no GPU",
            "resnet18": "few images, or little GPU memory",
            "resnet50": "enough images for it",
        }
        reasons["backbone"] = why[str(name)]
    if given.get("image_size") is None:
        reasons["view size"] = f"the images are {images.side} pixels wide or high" + (
            "" if size >= images.side or machine.gpus else "; larger views cost too much without a GPU"
        )
    if given.get("per_device_train_batch_size") is None:
        few = images.count is not None and global_batch * BATCHES > images.count
        reasons["batch"] = "small, for few images" if few else "fits into the memory, four batches or more in a pass"
    if given.get("max_steps") is None and given.get("num_train_epochs") is None:
        reasons["steps"] = "a first run; more steps are better" if not machine.gpus else "by the number of images"
    if given.get("learning_rate") is None and given.get("base_learning_rate") is None:
        reasons["rate"] = "by the optimizer"
    if given.get("dataloader_num_workers") is None:
        reasons["workers"] = "the cores that training leaves" if not machine.gpus else "by the cores of each GPU"
    return reasons
