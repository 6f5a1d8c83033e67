"""Choosing the device to compute on."""

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
