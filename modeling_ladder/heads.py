"""Projectors and predictors: the MLP heads of BYOL (arXiv 2006.07733, section 3.3), one per level and kind of loss."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


class LadderHead(nn.Module):
    """An MLP: linear with bias, batch norm, ReLU, linear without bias.

    Args:
        in_size: Width of the input.
        hidden_size: Width of the hidden layer.
        out_size: Width of the output.
    """

    def __init__(self, in_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_size, hidden_size)
        self.normalization = nn.BatchNorm1d(hidden_size)
        self.activation = nn.ReLU(inplace=True)
        self.output = nn.Linear(hidden_size, out_size, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors to `out_size`. Batch norm counts every vector as one sample.

        Args:
            vectors: (..., in_size).

        Returns:
            (..., out_size), in the dtype of the weights.
        """
        flat = vectors.reshape(-1, vectors.shape[-1]).to(self.hidden.weight.dtype)
        flat = cast(Tensor, self.output(self.activation(self.normalization(self.hidden(flat)))))
        return flat.reshape(*vectors.shape[:-1], flat.shape[-1])


def build_heads(sizes: dict[tuple[str, str], tuple[int, int, int]]) -> nn.ModuleDict:
    """Build the heads of all levels. State-dict keys contain the names of stage and kind, never an index.

    Args:
        sizes: (stage, kind) to (input, hidden, output) width.

    Returns:
        `heads[stage][kind]`, a ModuleDict of ModuleDicts of `LadderHead`.
    """
    stages: dict[str, nn.ModuleDict] = {}
    for (stage, kind), (in_size, hidden_size, out_size) in sizes.items():
        stages.setdefault(stage, nn.ModuleDict())[kind] = LadderHead(in_size, hidden_size, out_size)
    return nn.ModuleDict(stages)


def head(heads: nn.ModuleDict, stage: str, kind: str) -> LadderHead:
    """Look up one head of what `build_heads` returned."""
    return cast(LadderHead, cast(nn.ModuleDict, heads[stage])[kind])


class TargetNetwork(nn.Module):
    """The target's backbone and projectors.

    They receive no gradient and stay in float32 when the model is cast to a smaller dtype: in bfloat16 a momentum
    average would lose its updates, because (1 - tau) = 0.004 is below the resolution of that dtype.

    Args:
        backbone: A copy of the online backbone.
        projectors: A copy of the online projectors.
    """

    def __init__(self, backbone: nn.Module, projectors: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone = backbone
        self.projectors = projectors
        self.requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TargetNetwork":
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.dtype == torch.float32 and moved.dtype in (torch.float16, torch.bfloat16):
                return tensor.to(device=moved.device)
            return moved

        apply = cast(Callable[..., "TargetNetwork"], super()._apply)  # torch gives it no types
        return apply(keep_float32, recurse)


__all__ = ["LadderHead", "TargetNetwork", "build_heads", "head"]
