"""Copies of batches to a GPU under the step that it still computes."""

import torch
from torch import Tensor


class InputCopies:
    """Copies batches on a stream of their own.

    The host is ahead of the GPU: it fetches the next batch while the GPU computes. A copy on the stream of the
    computation would wait for its end; on another stream it runs at the same time. From pinned memory the host does not
    wait for it either.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy a batch; what is computed from now on waits for the copy."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            copied = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        computing.wait_stream(self._stream)
        for value in copied.values():
            # Its memory belongs to the stream of the copies, which must not use it again before the step has.
            value.record_stream(computing)
        return copied
