"""Choosing the device to compute on, and its fastest convolutions."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import UserError


def choose_device(device: Any) -> torch.device:
    """Return the device that the user named; default: a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
    return chosen


def visible_gpus() -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES can give one of this process's GPUs to another process."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in named.split(",")] if named else [str(index) for index in range(count)]
    return names[:count]


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its convolutions at the first step and keep the fastest; every batch must have the same shape.

    Nothing changes on other devices, and where determinism was asked for: which one is fastest is a matter of chance.
    """
    chosen = torch.backends.cudnn.benchmark
    fixed = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = chosen or (device.type == "cuda" and not fixed)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = chosen
