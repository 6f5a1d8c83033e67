"""Projectors and predictors: the MLP heads of BYOL (arXiv 2006.07733, section 3.3), one per level and kind of loss."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .autocast import autocast_type
from .batch_norm import LadderBatchNorm

Result = TypeVar("Result")


_LEAST_IMAGES = 16
"""Torch gives 1 x 1 convolutions of fewer images to the library that multiplies matrices, so nothing is gained."""
_LEAST_POINTS = 8
"""With fewer points an image, the convolution's backward takes longer than that of the matrix product."""


_has_onednn = cast(Callable[[], bool], torch.backends.mkldnn.is_available)  # torch gives it no types


class PointLinear(nn.Linear):
    """A linear layer that maps many points of each image fast on processors, too.

    There it is a 1 x 1 convolution over the points. Torch multiplies matrices by MKL, which on AMD's processors leaves
    AVX-512 unused, and convolves by oneDNN, which uses it: a third to a half of the time of forward and backward is
    saved. Single vectors of images (batch, in) go through the matrix product, in BYOL's own order of additions.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not self._by_convolution(input):
            return super().forward(input)
        image = input.unsqueeze(1).permute(0, 3, 1, 2)  # (batch, in, 1, points), channels-last as it lies
        mapped = F.conv2d(image, self.weight.unsqueeze(-1).unsqueeze(-1), self.bias)
        return mapped.permute(0, 2, 3, 1).flatten(1, 2)

    def _by_convolution(self, input: Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()  # first: the compiler cannot trace the question for oneDNN
            and input.device.type == "cpu"
            and input.dim() == 3
            and input.shape[0] >= _LEAST_IMAGES
            and input.shape[1] >= _LEAST_POINTS
            and input.dtype == self.weight.dtype == torch.float32
            and _has_onednn()
            and autocast_type(input.device) is None
        )


class LadderHead(nn.Module):
    """An MLP: linear with bias, batch norm, ReLU, linear without bias.

    Args:
        in_size: Width of the input.
        hidden_size: Width of the hidden layer.
        out_size: Width of the output.
    """

    def __init__(self, in_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.hidden = PointLinear(in_size, hidden_size)
        self.normalization = LadderBatchNorm(hidden_size)
        self.activation = nn.ReLU(inplace=True)
        self.output = PointLinear(hidden_size, out_size, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors to `out_size`. Batch norm counts every vector as one sample.

        Args:
            vectors: (..., in_size).

        Returns:
            (..., out_size), in the dtype of the weights.
        """
        hidden = self.hidden(self._typed(vectors))
        rows = self.activation(self.normalization(hidden.reshape(-1, hidden.shape[-1])))
        return cast(Tensor, self.output(rows.reshape(hidden.shape)))

    def views(self, views: Tensor | Sequence[Tensor]) -> Tensor:
        """Map the vectors of several views. Batch norm takes one view after the other, with its own statistics.

        On a GPU the views share each matrix product, which halves the number of kernels. On a processor they do not:
        nothing would be gained, and a step stays BYOL's to the bit, because sums are taken in the same order.

        Args:
            views: (views, ..., in_size), or of each view (..., in_size), all of one shape.

        Returns:
            (views, ..., out_size).
        """
        if views[0].device.type == "cpu":
            return torch.stack([self(vectors) for vectors in views])
        return self._together(views)

    def _together(self, views: Tensor | Sequence[Tensor]) -> Tensor:
        joined = views if isinstance(views, Tensor) else torch.stack(list(views))
        hidden = self.hidden(self._typed(joined).reshape(len(joined), -1, joined.shape[-1]))
        normalised = torch.stack([self.normalization(part) for part in hidden.unbind()])
        output = cast(Tensor, self.output(self.activation(normalised)))
        return output.reshape(*joined.shape[:-1], output.shape[-1])

    def _typed(self, vectors: Tensor) -> Tensor:
        # Autocast chooses the type itself; a cast to that of the weights would be made for nothing.
        return vectors if autocast_type(vectors.device) is not None else vectors.to(self.hidden.weight.dtype)


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


_CAST_BY_AUTOCAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_HALF = (torch.float16, torch.bfloat16)


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
        self._cast_names: list[str] | None = None
        # A config or a checkpoint in half precision builds the online backbone in it, and so its copy.
        self._apply(lambda tensor: tensor.float() if tensor.dtype in _HALF else tensor)
        self.requires_grad_(False)

    def forward(self, work: Callable[["TargetNetwork"], Result]) -> Result:
        """Call `work` with this network; see `run`."""
        return work(self)

    def run(self, work: Callable[["TargetNetwork"], Result]) -> Result:
        """Call `work` with this network. Under autocast, each weight is cast once for all that it computes.

        Autocast itself keeps its casts of weights that are trained only, and casts the target's for every view anew.

        Args:
            work: Computes something with the network, without gradient.

        Returns:
            What `work` returned.
        """
        kind = autocast_type(next(self.parameters()).device)
        if kind is None or torch.compiler.is_compiling():  # the compiler merges equal casts itself
            return work(self)
        weights = {name: weight for name, weight in self._weights_to_cast() if weight.dtype == torch.float32}
        if not weights:
            return work(self)
        smaller = [torch.empty_like(weight, dtype=kind) for weight in weights.values()]
        torch._foreach_copy_(smaller, list(weights.values()))
        replaced = dict(zip(weights, smaller, strict=True))
        return cast(Result, torch.func.functional_call(self, replaced, (work,)))

    def _weights_to_cast(self) -> list[tuple[str, nn.Parameter]]:
        """List the parameters of layers that autocast runs in its own type; the names are looked up once."""
        if self._cast_names is None:
            self._cast_names = [
                f"{name}.{kind}"
                for name, module in self.named_modules()
                if isinstance(module, _CAST_BY_AUTOCAST)
                for kind, _ in module.named_parameters(recurse=False)
            ]
        return [(name, self.get_parameter(name)) for name in self._cast_names]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TargetNetwork":
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.dtype == torch.float32 and moved.dtype in _HALF:
                return tensor.to(device=moved.device)
            return moved

        apply = cast(Callable[..., "TargetNetwork"], super()._apply)  # torch gives it no types
        return apply(keep_float32, recurse)


__all__ = ["LadderHead", "TargetNetwork", "build_heads", "head"]
