"""Batch norm as torch's, without what costs time here: a counter of batches, and waits of the host across processes."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class LadderBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm for any number of dimensions, if wanted over the batches of all processes.

    It is torch's `BatchNorm1d` or `BatchNorm2d` with two differences. `num_batches_tracked` keeps its value, because
    nothing reads it while `momentum` is a number; torch adds 1 to it in a kernel of its own, which makes hundreds a
    step. And `synchronised` replaces `SyncBatchNorm`, which makes the host wait for the device three times a forward.

    Attributes:
        synchronised: In training, use the statistics of the batches of all processes of the default group. Every
            process must have images.
    """

    synchronised: bool = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (batch, channels, ...)."""
        if self.momentum is None:  # an average over all batches needs their count
            return super().forward(input)
        training = self.training or self.running_mean is None
        if training and self.synchronised and dist.is_initialized() and dist.get_world_size() > 1:
            arguments = (self.running_mean, self.running_var, self.eps, self.momentum)
            return cast(Tensor, _Synchronised.apply(input, self.weight, self.bias, *arguments))
        keep = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            self.weight,
            self.bias,
            training,
            self.momentum,
            self.eps,
        )

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (batch, channels, ...), got {tuple(input.shape)}")


# The name since torch 2.13, and the one before.
_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, LadderBatchNorm)


def convert_batch_norms(module: nn.Module, *, synchronised: bool = False) -> nn.Module:
    """Replace the batch norms of torch in a network by `LadderBatchNorm`, which shares their parameters and buffers.

    Args:
        module: The network; it is changed in place, unless it is a batch norm itself.
        synchronised: Use statistics over all processes.

    Returns:
        The network.
    """
    if type(module) in PLAIN:
        old = cast(nn.modules.batchnorm._BatchNorm, module)
        if isinstance(old, LadderBatchNorm):
            old.synchronised = synchronised
            return old
        new = LadderBatchNorm(old.num_features, old.eps, old.momentum, affine=False, track_running_stats=False)
        new.affine, new.track_running_stats = old.affine, old.track_running_stats
        new.weight, new.bias = old.weight, old.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            new.register_buffer(name, getattr(old, name))
        new.synchronised, new.training = synchronised, old.training
        return new
    for name, child in module.named_children():
        converted = convert_batch_norms(child, synchronised=synchronised)
        if converted is not child:
            setattr(module, name, converted)
    return module


class _Synchronised(torch.autograd.Function):
    """Batch norm with the statistics of all processes, in one collective operation forward and one backward.

    The host never waits for the device. torch's version takes out processes without images by a mask, and to know the
    size of what is left the host must wait.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
    ) -> Tensor:
        input = _dense(input)
        channels, world_size = input.shape[1], dist.get_world_size()
        kernels = _kernels(input)
        mean, invstd = kernels.batch_norm_stats(input, eps)
        count = torch.full((1,), input.numel() // channels, dtype=mean.dtype, device=mean.device)
        combined = torch.cat([mean, invstd, count])
        gathered = combined.new_empty(world_size * combined.numel())
        if input.device.type == "cpu":  # gloo has no gathering into one tensor in all versions
            dist.all_gather(list(gathered.view(world_size, -1)), combined)
        else:
            _GATHER(gathered, combined)
        by_process = gathered.view(world_size, -1)
        means, invstds = by_process[:, :channels], by_process[:, channels : 2 * channels]
        counts = by_process[:, 2 * channels :]
        mean, invstd = kernels.batch_norm_gather_stats_with_counts(
            input, means, invstds, running_mean, running_var, momentum, eps, counts.reshape(-1)
        )
        ctx.save_for_backward(input, weight, mean, invstd, counts)
        return cast(Tensor, kernels.batch_norm_elemt(input, weight, bias, mean, invstd, eps))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, invstd, counts = ctx.saved_tensors
        gradient, kernels = _dense(gradients[0]), _kernels(input)
        wanted = ctx.needs_input_grad
        sums, products, grad_weight, grad_bias = kernels.batch_norm_backward_reduce(
            gradient, input, mean, invstd, weight, wanted[0], wanted[1], wanted[2]
        )
        grad_input = None
        if wanted[0]:
            combined = torch.cat([sums, products])
            dist.all_reduce(combined)
            sums, products = combined[: sums.shape[0]], combined[sums.shape[0] :]
            grad_input = kernels.batch_norm_backward_elemt(
                gradient, input, mean, invstd, weight, sums, products, counts.to(torch.int32)
            )
        # The gradients of weight and bias are this process's own, as those of all other parameters are.
        return (
            grad_input,
            grad_weight if wanted[1] else None,
            grad_bias if wanted[2] else None,
            None,
            None,
            None,
            None,
        )


class _OnProcessor:
    """The kernels of torch's SyncBatchNorm, which exist on GPUs only, written with functions that exist everywhere."""

    @staticmethod
    def batch_norm_stats(input: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(_wide(input), dim=_others(input), correction=0)
        return mean, (variance + eps).rsqrt()

    @staticmethod
    def batch_norm_gather_stats_with_counts(
        input: Tensor,
        means: Tensor,
        invstds: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        counts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count = counts.sum()
        share = (counts / count).unsqueeze(1)
        mean = (means * share).sum(0)
        variance = ((invstds.pow(-2) - eps + (means - mean).square()) * share).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
        return mean, (variance + eps).rsqrt()

    @staticmethod
    def batch_norm_elemt(
        input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> Tensor:
        scale = invstd if weight is None else invstd * _wide(weight)
        shift = -mean * scale if bias is None else _wide(bias) - mean * scale
        return torch.addcmul(_spread(shift, input), _wide(input), _spread(scale, input)).to(input.dtype)

    @staticmethod
    def batch_norm_backward_reduce(
        gradient: Tensor,
        input: Tensor,
        mean: Tensor,
        invstd: Tensor,
        weight: Tensor | None,
        input_wanted: bool,
        weight_wanted: bool,
        bias_wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        sums = _wide(gradient).sum(_others(input))
        products = (_wide(gradient) * (_wide(input) - _spread(mean, input))).sum(_others(input))
        if weight is None:
            return sums, products, None, None
        return sums, products, (products * invstd).to(weight.dtype), sums.to(weight.dtype)

    @staticmethod
    def batch_norm_backward_elemt(
        gradient: Tensor,
        input: Tensor,
        mean: Tensor,
        invstd: Tensor,
        weight: Tensor | None,
        sums: Tensor,
        products: Tensor,
        counts: Tensor,
    ) -> Tensor:
        count = counts.sum()
        scale = invstd if weight is None else invstd * _wide(weight)
        slope = invstd.square() * products / count
        centred = _wide(input) - _spread(mean, input)
        change = _wide(gradient) - _spread(sums / count, input) - centred * _spread(slope, input)
        return (change * _spread(scale, input)).to(input.dtype)


def _kernels(input: Tensor) -> Any:
    # The compiler knows no shapes of torch's kernels, and fuses the plain functions itself.
    return _OnProcessor if input.device.type == "cpu" or torch.compiler.is_compiling() else torch


def _dense(values: Tensor) -> Tensor:
    channels_last = values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values if channels_last else values.contiguous()


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _others(values: Tensor) -> list[int]:
    """All dimensions but that of the channels."""
    return [dimension for dimension in range(values.dim()) if dimension != 1]


def _spread(channels: Tensor, values: Tensor) -> Tensor:
    """One number per channel, shaped to be combined with (batch, channels, ...)."""
    return channels.reshape(1, -1, *(1,) * (values.dim() - 2))


__all__ = ["LadderBatchNorm", "convert_batch_norms"]
