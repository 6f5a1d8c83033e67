"""LARS as in the BYOL reference, in one pass of foreach kernels: biases and norms are not adapted.

You et al., "Large Batch Training of Convolutional Networks" (arXiv 1708.03888); details after deepmind-research/byol
(`optimizers.py`): weight decay is added before the adaptation, the learning rate is applied after the momentum.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

_PORTION = 2**18
"""Values that are updated together on a processor: 1 MB each of weights, gradients, momentum and updates."""


class Lars(Optimizer):
    """Momentum SGD that scales the update of each weight by eta * |weight| / |gradient + weight_decay * weight|.

    Parameters of at most one dimension (biases, norms) are neither decayed nor adapted, also in a flat list.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        momentum: Momentum factor.
        weight_decay: Weight decay (L2 penalty), added to the gradient.
        eta: Trust coefficient.

    Raises:
        ValueError: a value is negative.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("eta", eta)):
            if value < 0:
                raise ValueError(f"Lars: {name} must be at least 0, got {value}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient. No value is read back from the device.

        Args:
            closure: Computes the loss again; its result is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            for portion in portions([p for p in with_gradient if p.ndim > 1]):
                self._update(portion, group, adapt=True)
            for portion in portions([p for p in with_gradient if p.ndim <= 1]):
                self._update(portion, group, adapt=False)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any], adapt: bool) -> None:
        updates = [cast(Tensor, p.grad) for p in params]
        if adapt:
            # The gradients are not changed; their sum with the decay is scaled in place.
            if group["weight_decay"]:
                updates = list(torch._foreach_add(updates, params, alpha=group["weight_decay"]))
                _scale_(updates, trust_ratios(params, updates, group["eta"]))
            else:
                updates = _scaled(updates, trust_ratios(params, updates, group["eta"]))
        # The step is bound by memory bandwidth, so the new momentum buffers reuse the memory of the scaled updates.
        before = [self._buffer(p) for p in params]
        if adapt:
            torch._foreach_add_(updates, before, alpha=group["momentum"])
        else:
            updates = list(torch._foreach_add(updates, before, alpha=group["momentum"]))
        for param, buffer in zip(params, updates, strict=True):
            self.state[param]["momentum_buffer"] = buffer
        torch._foreach_add_(params, updates, alpha=-group["lr"])

    def _buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state["momentum_buffer"]


def portions(params: list[Tensor]) -> list[list[Tensor]]:
    """Divide parameters into what is updated together: all of them on a GPU, what the caches hold on a processor.

    Each value is read and written several times in a step; without portions every time comes from main memory.
    """
    if params and params[0].is_cuda:
        return [params]
    made: list[list[Tensor]] = []
    room = 0
    for param in params:
        if param.numel() > room:
            made.append([])
            room = _PORTION
        made[-1].append(param)
        room -= param.numel()
    return made


def _scaled(tensors: list[Tensor], factors: Tensor) -> list[Tensor]:
    """Multiply each tensor by its own factor."""
    return list(torch._foreach_mul(tensors, _for_kernels(factors, tensors)))


def _scale_(tensors: list[Tensor], factors: Tensor) -> None:
    """Multiply each tensor by its own factor, in place."""
    torch._foreach_mul_(tensors, _for_kernels(factors, tensors))


def _for_kernels(factors: Tensor, tensors: list[Tensor]) -> Any:
    """The factors as the device multiplies them fastest; the products are the same to the bit.

    On a GPU a list of scalars would be one launch per tensor: torch's joint kernels want pairs of equal shape.
    """
    return spread(factors, tensors) if tensors[0].is_cuda else list(factors.unbind())


def spread(factors: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Repeat each factor in the shape and the strides of its tensor, by one kernel and without a read by the host.

    Args:
        factors: (count,).
        tensors: As many, without gaps in memory, as parameters are.
    """
    sizes = [tensor.numel() for tensor in tensors]
    together = torch.cat([factor.expand(size) for factor, size in zip(factors.unbind(), sizes, strict=True)])
    parts = together.split(sizes)
    return [part.as_strided(own.shape, own.stride()) for part, own in zip(parts, tensors, strict=True)]


def trust_ratios(params: list[Tensor], updates: list[Tensor], eta: float) -> Tensor:
    """Return eta * |param| / |update| for each pair, or 1 if a norm is 0, as (count,) on the parameters' device."""
    param_norms = torch.stack(torch._foreach_norm(params))
    update_norms = torch.stack(torch._foreach_norm(updates))
    usable = (param_norms > 0) & (update_norms > 0)
    return torch.where(usable, eta * param_norms / update_norms.where(usable, 1.0), 1.0)
