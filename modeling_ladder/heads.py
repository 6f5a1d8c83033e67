"""Projectors and predictors: the MLP heads of BYOL (arXiv 2006.07733, section 3.3), one per level and kind of loss."""

import torch
from torch import Tensor, nn


class LadderHead(nn.Module):
    """Linear with bias, batch norm, ReLU, linear without bias.

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
        """(..., in_size) to (..., out_size); batch norm counts every vector as a sample of its own."""
        flat = vectors.reshape(-1, vectors.shape[-1]).to(self.hidden.weight.dtype)
        flat = self.output(self.activation(self.normalization(self.hidden(flat))))
        return flat.reshape(*vectors.shape[:-1], flat.shape[-1])


def build_heads(sizes: dict[tuple[str, str], tuple[int, int, int]]) -> nn.ModuleDict:
    """Heads in a two-level dictionary, `heads[stage][kind]`, so that state-dict keys carry names and never an index.

    Args:
        sizes: (in, hidden, out) for each (stage, kind).

    Returns:
        ModuleDict of ModuleDicts of `LadderHead`.
    """
    heads = nn.ModuleDict()
    for (stage, kind), (in_size, hidden_size, out_size) in sizes.items():
        if stage not in heads:
            heads[stage] = nn.ModuleDict()
        heads[stage][kind] = LadderHead(in_size, hidden_size, out_size)
    return heads


class TargetNetwork(nn.Module):
    """The target's backbone and projectors. It never takes a gradient and holds float32 whatever the model is cast to.

    A momentum average loses its updates in bfloat16: (1 - tau) of 0.004 is below the type's resolution.

    Args:
        backbone: Copy of the online backbone.
        projectors: Copy of the online projectors.
    """

    def __init__(self, backbone: nn.Module, projectors: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone = backbone
        self.projectors = projectors
        self.requires_grad_(False)

    def _apply(self, fn, recurse: bool = True):
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.dtype == torch.float32 and moved.dtype in (torch.float16, torch.bfloat16):
                return tensor.to(device=moved.device)
            return moved

        return super()._apply(keep_float32, recurse)


__all__ = ["LadderHead", "TargetNetwork", "build_heads"]
