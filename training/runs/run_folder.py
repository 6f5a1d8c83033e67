"""A run's folder: which run it holds, and the facts about the machine and the command that a run records."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, system_error
from ..files import same_name
from .checkpoints import is_leftover
from .record import FINISHED, IMPORTED, RunRecord

PRETRAINING = "pretraining"
LOCK = ".lock"

# Fields that change where or how fast a run computes, but not what: they may differ when a run is resumed.
FREE_FIELDS = frozenset(
    """output output_dir logging_dir logging_steps logging_strategy logging_first_step log_level log_level_replica
    log_on_each_node disable_tqdm report_to run_name project verify run_name_for_card card_images license
    trackio_space_id trackio_bucket_id trackio_static_space_id save_total_limit save_steps save_strategy
    dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers dataloader_pin_memory
    dataloader_multiprocessing_context resume_from_checkpoint push_to_hub hub_token hub_model_id hub_strategy
    hub_private_repo hub_always_push hub_revision enable_jit_checkpoint ddp_timeout ddp_backend ddp_bucket_cap_mb
    local_rank skip_memory_metrics debug accept_changed_data""".split()  # noqa: SIM905
)
LIMITS = frozenset({"max_bad_fraction", "stop_on_collapse", "collapse_threshold"})
"""Fields that say when a run must stop, and change nothing that it computes: they may be raised to go on."""
DATA_SETS = ("dataset", "eval_dataset")
SECRET_FIELDS = frozenset({"hub_token"})
PACKAGES = (
    "ladder-siamese",
    "torch",
    "torchvision",
    "transformers",
    "datasets",
    "huggingface-hub",
    "accelerate",
    "evaluate",
    "opencv-python-headless",
)


def check_output(folder: Path | str, values: dict[str, Any]) -> RunRecord | None:
    """Check that a run with these values may write to a folder.

    Args:
        folder: The run's folder, which need not exist.
        values: Resolved values of the recipe, as `run.json` keeps them.

    Returns:
        The earlier run of the same recipe, which is to be resumed, or None if nothing was trained yet.

    Raises:
        UserError: the folder is a file, is not empty but holds no run, or holds the run of another recipe or imported
            weights.
    """
    folder = Path(folder)
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise UserError(f"output folder {folder} cannot be used: {system_error(error) or error}") from error
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output {folder} is a file; choose a folder with --output")
    run = RunRecord.read(folder)
    if run is None:
        # A start that was killed before its first file was complete leaves only temporary files.
        if folder.is_dir() and any(not is_leftover(path) and path.name != LOCK for path in folder.iterdir()):
            raise UserError(f"output folder {folder} is not empty and holds no run; choose another --output")
        return None
    if run.status == IMPORTED:
        raise UserError(
            f"output folder {folder} holds weights that `ladder import` wrote: to train on from them give "
            f"`--from {folder}` and another --output"
        )
    saved = run.recipe.values
    differing = differing_fields(saved, values)
    if differing:
        shown = "; ".join(
            f"{name} was {_shown(saved.get(name))}, is {_shown(values.get(name))}" for name in differing[:3]
        )
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        remedy = "choose another --output"
        if run.status == FINISHED and set(differing) <= {"max_steps", "num_train_epochs"}:
            remedy = (
                f"this run is finished, and its schedule with it: to train on, start from its weights with "
                f"`--from {folder}` and another --output"
            )
        raise UserError(f"output folder {folder} holds the run of another recipe ({shown}{more}); {remedy}")
    return run


def differing_fields(saved: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Return the names of the fields that make two runs different, in the order of `values`."""
    names = list(dict.fromkeys([*values, *saved]))
    as_saved, as_given = (json.loads(json.dumps(mapping, default=str)) for mapping in (saved, values))
    for mapping in (as_saved, as_given):
        mapping.update({name: _place(mapping[name]) for name in DATA_SETS if name in mapping})
    return [name for name in names if name not in FREE_FIELDS | LIMITS and as_saved.get(name) != as_given.get(name)]


def _place(data_set: Any) -> Any:
    """Where a local data set lies, however its path is spelt; any other name unchanged."""
    if isinstance(data_set, list):
        return [_place(entry) for entry in data_set]
    if not isinstance(data_set, str):
        return data_set
    return same_name(data_set)


def recorded_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values without secrets, as a run's files may show them."""
    from ladder_model_cards.secrets import hide_in_values

    shown: dict[str, Any] = hide_in_values({name: value for name, value in values.items() if name not in SECRET_FIELDS})
    return shown


def recorded_text(text: str, values: dict[str, Any]) -> str:
    """Return a recipe's text with its secrets replaced by ***.

    Args:
        text: The recipe, as its author wrote it. Its own secrets are hidden, also those that `values` does not hold.
        values: Resolved values, with those of the command line.
    """
    from ladder_model_cards.secrets import HIDDEN, hide_secrets, is_secret_name

    try:
        written = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        written = None
    for mapping in (written if isinstance(written, dict) else {}, values):
        for name, value in mapping.items():
            if value and isinstance(value, str) and is_secret_name(str(name).replace("-", "_")):
                text = text.replace(value, HIDDEN)
    return hide_secrets(text)


def command_line(arguments: list[str] | None = None) -> str:
    """Return the command in one line, quoted for a shell; secrets are replaced by ***."""
    from ladder_model_cards.secrets import HIDDEN, hide_secrets, is_secret_name

    words = list(sys.argv[1:] if arguments is None else arguments)
    shown = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = name.startswith("--") and is_secret_name(name.replace("-", "_").lstrip("_"))
        shown.append(HIDDEN if hide_next else f"{name}={HIDDEN}" if secret and equals else hide_secrets(word))
        hide_next = secret and not equals
    return shlex.join(["ladder", *shown])


def now() -> str:
    """Return the current time (ISO 8601, UTC, in seconds)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect a run's result."""
    numbers = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return numbers


def hardware(device: Any = None, processes: int = 1) -> str:
    """Describe the devices that compute, in one line.

    Args:
        device: The `torch.device` of this process. Default: a GPU if there is one.
        processes: Number of processes, over all machines. Each computes on one device.
    """
    import torch

    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu" and torch.backends.mps.is_available():
            device = torch.device("mps")
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return f"Apple {platform.machine()} GPU (MPS)"
    shared = f", {processes} processes" if processes > 1 else ""
    return f"{_processor()}, {os.cpu_count()} cores, no GPU{shared}"


def git_commit() -> str | None:
    """Return the commit of this package's source, with "+" if tracked files were changed; None outside a clone."""
    source = Path(__file__).resolve().parent
    try:
        commit = _git(source, "rev-parse", "HEAD")
        tracked = _git(source, "ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git(source, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return (commit + ("+" if changed else "")) if tracked else None


def _git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command. Raises if git is missing or the command fails."""
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return result.stdout.strip()


def _processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _shown(value: Any) -> str:
    """Format a value for a message, in at most 60 characters."""
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
