"""What autocast does on a device, also on those that have none, such as meta."""

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_type(device: torch.device) -> torch.dtype | None:
    """Return the type that autocast computes in on a device, or None if it is off there."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off on a device inside the block."""
    return nullcontext() if autocast_type(device) is None else torch.autocast(device.type, enabled=False)


__all__ = ["autocast_type", "without_autocast"]
