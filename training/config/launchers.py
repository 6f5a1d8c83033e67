"""Ways of sharing a network among GPUs that a launcher may ask for, and that this package does not support."""

import os
from collections.abc import Mapping

from ..errors import UserError

_UNSUPPORTED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context and sequence parallelism",
}


def check_launcher(environment: Mapping[str, str] | None = None) -> None:
    """Check that each process is to hold a whole network, as in distributed data parallel training.

    Args:
        environment: Of this process, where `accelerate launch` leaves its options.

    Raises:
        UserError: the network is to be shared among processes in parts.
    """
    environment = os.environ if environment is None else environment
    for name, way in _UNSUPPORTED.items():
        if environment.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise UserError(
                f"`accelerate launch` or its config file asks for {way}, which is not supported: the average of the "
                "weights, batch norm and the looks need the whole network in each process; use `accelerate launch "
                "--multi_gpu`, which shares the images"
            )
