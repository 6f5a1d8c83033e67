"""What all fine-tuning shares: the order of the images, the batch norms of the backbone, and the training loop."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from modeling_ladder.batch_norm import convert_batch_norms

from ..config.launchers import check_launcher, launched_processes
from ..errors import TrainingStopped, UserError
from ..loading.progress import progress
from ..models.devices import choose_device
from .backbone import StageFeatures

BATCH_NORM = nn.modules.batchnorm._BatchNorm
Key = tuple[int, int]


class SeededBatches(Sampler[list[Key]]):
    """Batches of (index, seed) keys for one process, over as many passes as needed; every pass is shuffled anew.

    An example's seed depends on the run's seed and on the example's position in the run, not on the workers.

    Args:
        count: Number of images.
        batch_size: Images per batch of one process.
        steps: Number of batches.
        seed: Of the order and of the examples' seeds.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, count: int, batch_size: int, steps: int, seed: int, rank: int = 0, world_size: int = 1, first: int = 0
    ) -> None:
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.rank, self.world_size, self.first = rank, world_size, first

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[Key] = []
        for _ in range(self.steps):
            while len(waiting) < self.batch_size * self.world_size:
                order = torch.randperm(self.count, generator=generator).tolist()
                seeds = torch.randint(2**62, (self.count,), generator=generator).tolist()
                waiting += zip(order, seeds, strict=True)
            batch, waiting = waiting[: self.batch_size * self.world_size], waiting[self.batch_size * self.world_size :]
            yield batch[self.rank :: self.world_size]


def training_loader(
    dataset: Dataset, options: Any, steps: int, seed: int, accelerator: Any, collate: Callable[[list[Any]], Any]
) -> DataLoader:
    """Make a loader of `steps` batches of a map-style data set whose items are requested by (index, seed) keys."""
    batches = SeededBatches(
        len(cast(Sized, dataset)), options.batch_size, steps, seed, accelerator.process_index, accelerator.num_processes
    )
    return DataLoader(dataset, batch_sampler=batches, num_workers=options.num_workers, collate_fn=collate)


def make_accelerator(device: Any, mixed_precision: str = "no") -> Any:
    """Make an `accelerate.Accelerator` for a device (None: a GPU if there is one).

    Raises:
        UserError: there is no such device, or the launcher asks for a way of sharing the network that is not supported.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    check_launcher(mixed_precision)
    chosen = choose_device(device)
    if launched_processes() > 1:
        if chosen.index is not None:
            raise UserError(f"device {chosen}: each of several processes takes a GPU of its own; leave device out")
    # accelerate keeps one device per process, which an earlier task may have chosen.
    elif PartialState._shared_state and PartialState().device != chosen:
        AcceleratorState._reset_state(reset_partial_state=True)
    # It also keeps one precision, and refuses another.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # for what accelerate and torch do on the current GPU
    with _accelerate_on(chosen):
        # Without `cpu`, accelerate takes each of several processes without a GPU for a job of its own.
        return Accelerator(cpu=chosen.type == "cpu", mixed_precision=mixed_precision)


@contextlib.contextmanager
def _accelerate_on(device: torch.device) -> Iterator[None]:
    """Let accelerate, when it first starts, take a device with an index; by itself it takes the first GPU."""
    name = "ACCELERATE_TORCH_DEVICE"
    before = os.environ.get(name)
    if device.index is not None:
        os.environ[name] = str(device)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


class TunedBackbone(nn.Module):
    """A trainable backbone that treats its batch norms in one of three ways.

    "train" uses the statistics of each batch, as pretraining does. "sync" shares them over all GPUs (the usual protocol
    for detection). "frozen" keeps running statistics, scales and shifts as pretrained, for batches that are too small.

    Args:
        features: The backbone and its stages; copied.
        batch_norm: "train", "sync" or "frozen".
        trainable: False keeps the whole backbone frozen and in eval mode.
    """

    def __init__(self, features: StageFeatures, batch_norm: str, *, trainable: bool = True) -> None:
        super().__init__()
        self.features = copy.deepcopy(features).requires_grad_(trainable)
        self.batch_norm, self.trainable = batch_norm, trainable
        if trainable:
            _freeze_unused(self.features)
        if batch_norm == "frozen":
            for module in self._norms():
                module.requires_grad_(False)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Stage name to (batch, channels, height, width)."""
        if self.trainable:
            return self.features(pixel_values)
        with torch.no_grad():
            return self.features(pixel_values)

    def train(self, mode: bool = True) -> "TunedBackbone":
        """Set train or eval mode as `nn.Module.train` does, but keep frozen parts in eval mode."""
        super().train(mode)
        if not self.trainable:
            self.features.eval()
        elif self.batch_norm == "frozen":
            for module in self._norms():
                module.eval()
        return self

    @property
    def measures_statistics(self) -> bool:
        """Whether training changes the running statistics of the batch norms."""
        return self.trainable and self.batch_norm != "frozen"

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.features.modules() if isinstance(module, BATCH_NORM)]


def _freeze_unused(features: StageFeatures) -> None:
    """Freeze what the chosen stages do not depend on: several processes would wait for its gradient."""
    training = features.training
    parameters = list(features.parameters())
    image = torch.zeros(1, 3, 64, 64, device=parameters[0].device, dtype=parameters[0].dtype)
    with torch.enable_grad():
        total = torch.stack([cells.float().sum() for cells in features.eval()(image).values()]).sum()
    for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
    features.train(training)


def shared_statistics(model: nn.Module, batch_norm: str, accelerator: Any) -> nn.Module:
    """Synchronise batch norms if `batch_norm` is "sync" and there is more than one process."""
    if batch_norm == "sync" and accelerator.num_processes > 1:
        return convert_batch_norms(model, synchronised=True)
    return model


@torch.no_grad()
def agree_on_statistics(model: nn.Module, accelerator: Any) -> None:
    """Average the running statistics over the processes, whose images differ, so that all hold one network.

    Args:
        model: Its batch norms in train mode are averaged; frozen ones are equal already.
        accelerator: The `accelerate.Accelerator`.
    """
    if accelerator.num_processes == 1:
        return
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORM) and module.training]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    if not buffers:
        return
    together = accelerator.reduce(torch.cat([buffer.flatten() for buffer in buffers]), "mean")
    parts = together.split([buffer.numel() for buffer in buffers])
    torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])


def parameter_groups(model: nn.Module, weight_decay: float, backbone_rate: float | None = None) -> list[dict[str, Any]]:
    """Group the trainable parameters: those with one dimension (biases, norms) take no weight decay.

    Args:
        model: Of any task.
        weight_decay: Of matrices and kernels.
        backbone_rate: Learning rate of what lies in a `TunedBackbone`, in groups of its own; None: as everything else.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if backbone_rate is None:
        return _decayed_or_not(trainable, weight_decay)
    bodies = [module for module in model.modules() if isinstance(module, TunedBackbone)]
    inside = {id(parameter) for body in bodies for parameter in body.parameters()}
    head = [parameter for parameter in trainable if id(parameter) not in inside]
    backbone = [parameter for parameter in trainable if id(parameter) in inside]
    slow = [{**group, "lr": backbone_rate} for group in _decayed_or_not(backbone, weight_decay)]
    return [*_decayed_or_not(head, weight_decay), *slow]


def _decayed_or_not(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def fine_tune(
    model: nn.Module,
    loader: DataLoader,
    loss_of: Callable[[nn.Module, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    factor: Callable[[int], float],
    accelerator: Any,
    *,
    max_gradient_norm: float = 0.0,
    name: str = "training",
) -> list[float]:
    """Train until the loader is exhausted.

    Args:
        model: As prepared by the accelerator; it is left in train mode, the same in all processes.
        loader: Batches for `loss_of`.
        loss_of: Computes a scalar loss from the model and a batch.
        optimizer: At step k, each group's rate is its initial rate times `factor(k)`.
        factor: Schedule of the learning rate.
        accelerator: The `accelerate.Accelerator`.
        max_gradient_norm: Gradients are clipped to this norm; 0 turns clipping off.
        name: Shown in the progress bar and in messages.

    Returns:
        The loss of every step on this process.

    Raises:
        TrainingStopped: the loss is not finite.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    losses: list[float] = []
    model.train()
    bar = progress(loader, name, total=len(loader))
    for step, batch in enumerate(bar):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor(step)
        with accelerator.autocast(), _statistics_need_two_values():
            loss = loss_of(model, batch)
        losses.append(loss.item())
        if not torch.isfinite(loss):
            raise TrainingStopped(f"{name}: the loss is {losses[-1]} at step {step}; lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        if max_gradient_norm > 0:
            accelerator.clip_grad_norm_(model.parameters(), max_gradient_norm)
        optimizer.step()
        if step % 20 == 0 and hasattr(bar, "set_postfix"):
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    agree_on_statistics(model, accelerator)
    return losses


@contextlib.contextmanager
def _statistics_need_two_values() -> Iterator[None]:
    """Raise a UserError where a batch norm that trains gets one value per channel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "batch norm cannot train on one image whose map is a single cell: use a batch_size of 2 or more or larger "
            "images, or batch_norm: frozen"
        ) from error


def tune_on_images(
    network: nn.Module,
    dataset: Dataset,
    options: Any,
    seed: int,
    accelerator: Any,
    *,
    loss_of: Callable[[nn.Module, Any], Tensor],
    factor: Callable[[int], float],
    collate: Callable[[list[Any]], Any],
    name: str,
    measure: bool = True,
) -> list[float]:
    """Train a dense task's network in place by SGD, for `options.steps` batches of a map-style data set.

    Args:
        network: The task's whole network.
        dataset: Its items are requested by (index, seed) keys.
        options: Of the task. `precise_batch_norm` is the number of images on which running statistics are measured at
            the end.
        seed: Of the order and of the examples' seeds.
        accelerator: The `accelerate.Accelerator`.
        loss_of: Computes a scalar loss from the network and a batch.
        factor: Schedule of the learning rate.
        collate: Makes a batch of items.
        name: Shown in the progress bar and in messages.
        measure: Whether training changes running statistics at all.

    Returns:
        The loss of every step on this process.

    Raises:
        TrainingStopped: the loss is not finite.
    """
    loader = training_loader(dataset, options, options.steps, seed, accelerator, collate)
    network = shared_statistics(network, options.batch_norm, accelerator)
    share = options.backbone_learning_rate_factor
    groups = parameter_groups(network, options.weight_decay, None if share == 1 else share * options.learning_rate)
    optimizer = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
    model, optimizer = accelerator.prepare(network, optimizer)
    norm = options.max_gradient_norm
    losses = fine_tune(model, loader, loss_of, optimizer, factor, accelerator, max_gradient_norm=norm, name=name)
    if options.precise_batch_norm and measure:
        count = max(1, options.precise_batch_norm // (options.batch_size * accelerator.num_processes))
        again = training_loader(dataset, options, count, seed + 1, accelerator, collate)
        measure_statistics(network, lambda batch: loss_of(network, batch), again)
        agree_on_statistics(network, accelerator)
    return losses


@torch.no_grad()
def measure_statistics(model: nn.Module, run: Callable[[Any], Any], batches: Any) -> None:
    """Recompute the running statistics of all batch norms as plain averages over batches (precise batch norm).

    Args:
        model: Batch norms in train mode are reset and measured; frozen ones keep their statistics.
        run: Puts one batch through the model.
        batches: Training batches.
    """
    model.train()
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORM) and module.training]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    for batch in batches:
        run(batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
