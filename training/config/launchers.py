"""What a launcher asks of a run: a network in parts, which is not supported, or settings that are the run's own."""

import os
from collections.abc import Mapping

from ..errors import UserError

_UNSUPPORTED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context and sequence parallelism",
}
_PRECISIONS = ("no", "bf16", "fp16")


def launched_processes() -> int:
    """Number of processes that a launcher (accelerate, torchrun) has started for this job; 1 without one."""
    return int(os.environ.get("WORLD_SIZE") or "1")


def started_alone(environment: Mapping[str, str] | None = None) -> str | None:
    """Say that `accelerate launch` was asked for several processes, but has started this one only.

    It does so with `--num_processes 2` alone, without a word. What tells is that it leaves an address where processes
    would meet, which it does for several only, and no number of processes.

    Args:
        environment: Of this process.

    Returns:
        One line, or None if that is not so.
    """
    environment = os.environ if environment is None else environment
    counted = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    asked = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_PORT" in environment
    if not asked or any(name in environment for name in counted):
        return None
    return (
        "`accelerate launch` was asked for several processes, but has started this one only: give it --multi_gpu, or "
        "start with `torchrun --nproc_per_node N -m ladder_training ...`"
    )


def check_launcher(precision: str = "no", compiler: str = "no", environment: Mapping[str, str] | None = None) -> None:
    """Check that each process is to hold a whole network, and to compute as the options of the run itself say.

    Those are recorded, compared when a run resumes, and shown on its card; those of the launcher are not.

    Args:
        precision: Mixed precision that the run asks for: no, bf16 or fp16.
        compiler: Backend of `torch.compile` that the run asks for, or no.
        environment: Of this process, where `accelerate launch` leaves its options.

    Raises:
        UserError: the network is to be shared among processes in parts, or the launcher asks for a precision or a
            compiler for which the run does not.
    """
    environment = os.environ if environment is None else environment
    for name, way in _UNSUPPORTED.items():
        if environment.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise UserError(
                f"`accelerate launch` or its config file asks for {way}, which is not supported: the average of the "
                "weights, batch norm and the looks need the whole network in each process; use `accelerate launch "
                "--multi_gpu`, which shares the images"
            )
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "").lower() or "no"
    if asked not in _PRECISIONS:
        raise UserError(
            f"`accelerate launch` or its config file asks for mixed_precision {asked}, which is not supported: it can "
            f"be {', '.join(_PRECISIONS)}"
        )
    _check_same("mixed_precision", asked, precision)
    _check_same("dynamo_backend", environment.get("ACCELERATE_DYNAMO_BACKEND", "").lower() or "no", compiler.lower())


def check_together(launched: int, together: int, device: str) -> None:
    """Check that the processes that a launcher has started train one network.

    Args:
        launched: Number of processes that were started.
        together: Number of those that accelerate lets work together.
        device: Kind of the device that this process computes on.

    Raises:
        UserError: each would train a network of its own, all in the same folder.
    """
    if launched > 1 and together != launched:
        raise UserError(
            f"a launcher has started {launched} processes, but on {device} accelerate lets {together} work together: "
            "start one process, or give --use_cpu true"
        )


def _check_same(name: str, asked: str, own: str) -> None:
    """Check that the launcher asks for nothing, or for what the run itself asks for.

    Raises:
        UserError: it asks for something else.
    """
    if asked not in ("no", own):
        option = {"mixed_precision": f"--{asked} true", "dynamo_backend": "--torch_compile true"}[name]
        raise UserError(
            f"`accelerate launch` or its config file asks for {name} {asked}, but the options of the run itself, which "
            f"are recorded with it, ask for {own}: start it with `accelerate launch --{name} {own}`, or give "
            f"`ladder pretrain` {option}"
        )
