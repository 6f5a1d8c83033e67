"""LARS as the BYOL reference uses it: layer-wise adaptation for weights, none for biases and norms, one pass of
foreach kernels.

You et al., "Large Batch Training of Convolutional Networks" (arXiv 1708.03888); details after deepmind-research/byol
(`optimizers.py`): weight decay is added before the adaptation, the learning rate is applied after the momentum.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """Momentum SGD whose step for each weight is scaled by eta * |weight| / |gradient + weight_decay * weight|.

    Parameters of at most one dimension (biases, norms) take neither weight decay nor adaptation, in a flat list too.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        momentum: Decay of the running update.
        weight_decay: L2 penalty, added to the gradient.
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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have a gradient; no value is read back from the device."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            self._update([p for p in with_gradient if p.ndim > 1], group, adapt=True)
            self._update([p for p in with_gradient if p.ndim <= 1], group, adapt=False)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any], adapt: bool) -> None:
        if not params:
            return
        updates = [p.grad for p in params]
        if adapt:
            # The gradients themselves stay as they are; their sum with the decay is scaled where it lies.
            if group["weight_decay"]:
                updates = torch._foreach_add(updates, params, alpha=group["weight_decay"])
                torch._foreach_mul_(updates, trust_ratios(params, updates, group["eta"]))
            else:
                updates = torch._foreach_mul(updates, trust_ratios(params, updates, group["eta"]))
        # The step is as fast as memory is, so the new running updates take the place of the scaled ones.
        before = [self._buffer(p) for p in params]
        if adapt:
            torch._foreach_add_(updates, before, alpha=group["momentum"])
        else:
            updates = torch._foreach_add(updates, before, alpha=group["momentum"])
        for param, buffer in zip(params, updates, strict=True):
            self.state[param]["momentum_buffer"] = buffer
        torch._foreach_add_(params, updates, alpha=-group["lr"])

    def _buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state["momentum_buffer"]


def trust_ratios(params: list[Tensor], updates: list[Tensor], eta: float) -> list[Tensor]:
    """eta * |param| / |update| for each pair, 1 where either norm is 0; scalars on the parameters' device."""
    param_norms = torch.stack(torch._foreach_norm(params))
    update_norms = torch.stack(torch._foreach_norm(updates))
    usable = (param_norms > 0) & (update_norms > 0)
    ratios = torch.where(usable, eta * param_norms / update_norms.where(usable, 1.0), 1.0)
    return list(ratios.unbind())
