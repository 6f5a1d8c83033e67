"""TensorFlow's SAME padding in a backbone whose weights were trained with it."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after a side of `size` pixels, so that the result has size / stride, rounded up.

    The odd pixel comes after, where PyTorch's layers with the same padding on both sides use the one before.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _padded(images: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> Tensor:
    """Images (batch, channels, height, width) with SAME padding of `value`."""
    above, below = same_padding(images.shape[-2], kernel[0], stride[0])
    left, right = same_padding(images.shape[-1], kernel[1], stride[1])
    return pad(images, (left, right, above, below), value=value)


class SameConv2d(nn.Conv2d):
    """A convolution with SAME padding; its own padding is not used."""

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, height, width) to a map of size / stride, rounded up."""
        kernel, stride = tuple(self.kernel_size), tuple(self.stride)
        return conv2d(_padded(input, kernel, stride, 0.0), self.weight, self.bias, self.stride, 0, 1, self.groups)


class SameMaxPool2d(nn.Module):
    """A max pooling of a square window with SAME padding."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, height, width) to a map of size / stride, rounded up."""
        padded = _padded(input, (self.kernel,) * 2, (self.stride,) * 2, float("-inf"))
        return max_pool2d(padded, self.kernel, self.stride)


def pad_as_tensorflow(backbone: nn.Module) -> None:
    """Give all layers that reduce their maps SAME padding, in place; names and weights stay as they are.

    With a stride of 1 and an odd kernel both paddings are alike, so those layers stay.
    """
    for parent in list(backbone.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1 and max(layer.kernel_size) > 1:
                same: Any = SameConv2d.__new__(SameConv2d)
                same.__dict__.update(layer.__dict__)
                setattr(parent, name, same)
            elif isinstance(layer, nn.MaxPool2d):
                window: Any = layer  # square, as in every ResNet here
                setattr(parent, name, SameMaxPool2d(window.kernel_size, window.stride))
