"""Networks and batches on a GPU that is not there: tensors with a device, a type and strides, but without values.

Reading a value raises an error (the host would wait for the device), and so does an operation on tensors of two
devices. Code that may read values, such as a look at held-out images, runs under `AnsweredReads`.

Gradients need another device than "cuda", whose driver autograd asks: `TRAINABLE`, which torch knows by name only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

Network = TypeVar("Network", bound=nn.Module)
TRAINABLE = "lazy"
"""A device without values, inside `fake_gpu`, that gradients can be computed on."""
needs_fake_cuda = pytest.mark.skipif(
    not hasattr(torch._C, "_ensureCUDADeviceGuardSet"),
    reason="before torch 2.10, tensors without values ask the driver for the device 'cuda', which fails without a GPU",
)


@contextmanager
def fake_gpu(autocast: torch.dtype | None = None) -> Iterator[None]:
    """Inside the block new tensors have no values; those of the device "cuda" exist without a GPU.

    Use it in a process of its own (`run_apart`). torch's autograd engine asks the driver for the device "cuda", so
    nothing can be differentiated there; on `TRAINABLE` it can. Tensors made before the block are on the CPU.

    Args:
        autocast: The type that autocast computes in; None turns it off.
    """
    _describe_kernels()
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(allow_non_fake_inputs=True):
        # `torch.autocast` itself refuses where there is no GPU.
        torch.set_autocast_enabled("cuda", autocast is not None)
        torch.set_autocast_dtype("cuda", autocast or before[1])
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
            torch.clear_autocast_cache()


def without_values(network: Network, device: str = "cuda") -> Network:
    """Replace a network's parameters and buffers, in place, by tensors without values.

    Args:
        network: The network.
        device: "cuda" or `TRAINABLE` inside `fake_gpu`, or "meta" anywhere.
    """
    moved: dict[int, Any] = {}
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    own[name] = moved.setdefault(id(tensor), _moved(tensor, device))
    return network


@lru_cache(maxsize=1)
def _describe_kernels() -> None:
    """Tell torch the shapes of the kernels of synchronised batch norm, which it runs on real GPUs only."""

    def channels(values: Tensor) -> Tensor:
        return values.new_empty(values.shape[1], dtype=torch.float32)

    def reduced(gradient: Any, values: Tensor, mean: Any, invstd: Any, weight: Any, *wanted: bool) -> tuple[Any, ...]:
        return tuple(channels(values) for _ in range(4))

    shapes = {
        "batch_norm_stats": lambda values, eps: (channels(values), channels(values)),
        "batch_norm_gather_stats_with_counts": lambda values, *_: (channels(values), channels(values)),
        "batch_norm_elemt": lambda values, *_: torch.empty_like(values),
        "batch_norm_backward_reduce": reduced,
        "batch_norm_backward_elemt": lambda gradient, values, *_: torch.empty_like(values),
    }
    for name, shape in shapes.items():
        torch.library.register_fake(f"aten::{name}", shape)


def _moved(tensor: Tensor, device: str) -> Tensor:
    there = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    return nn.Parameter(there, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def views_without_values(batch: int = 4, size: int = 64, device: str = "cuda") -> dict[str, Tensor]:
    """A batch of view pairs; see `without_values`."""
    return {
        "pixel_values": torch.empty(batch, 2, 3, size, size, device=device),
        "view_boxes": torch.empty(batch, 2, 4, device=device),
        "view_flips": torch.empty(batch, 2, dtype=torch.bool, device=device),
    }


@contextmanager
def fake_group(processes: int = 8) -> Iterator[None]:
    """A process group whose collective operations do nothing."""
    import torch.testing._internal.distributed.fake_pg as fake_pg

    _describe_kernels()
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=0, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()


class OperationCount(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operations that run inside the block, by name without overload, such as "aten.bmm".

    Attributes:
        counts: Name to number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = ".".join(str(func).split(".")[:2])
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


class AnsweredReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Inside the block, which lies inside `fake_gpu`, a read of a value gives 1.

    Attributes:
        reads: Device type to number of reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            kind = args[0].device.type
            self.reads[kind] = self.reads.get(kind, 0) + 1
            return True if args[0].dtype is torch.bool else 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))
