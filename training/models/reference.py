"""References to models: a run's folder, a checkpoint, an exported folder or a Hub name.

A Hub name may end in `@REVISION`, a branch, a tag or a commit: `user/name@v1`.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, hub_refusal
from ..files import looks_like_path

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseModel

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")


def model_folder(reference: str) -> str:
    """Find the folder (or Hub name) that holds a model's files.

    For a run that has not finished, this is its newest undamaged checkpoint.

    Raises:
        UserError: there is no such folder, or it holds no model.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        if looks_like_path(reference.split("@")[0]):
            raise UserError(f"there is no folder {reference}")
        return reference
    if not path.is_dir():
        raise UserError(f"{reference} is a file; give the folder of a model")
    if (path / "config.json").is_file():
        return str(path)
    from ..runs.checkpoints import damage, list_checkpoints

    for checkpoint in reversed(list_checkpoints(path)):
        if damage(checkpoint) is None:
            return str(checkpoint)
    raise UserError(f"{reference} holds no model: neither config.json nor a whole checkpoint-N")


def run_around(folder: Path) -> Path | None:
    """The folder of the run that a checkpoint or `pretraining/` belongs to, however it is spelt; None if it is neither.

    Args:
        folder: A folder on this machine, also "." or a link.
    """
    whole = folder.expanduser().resolve()
    nested = whole.name == "pretraining" or whole.name.startswith("checkpoint-")
    return whole.parent if nested else None


def split_revision(reference: str, revision: str | None = None) -> tuple[str, str | None]:
    """Split a reference into the name and its `@REVISION`; a path that exists is never split.

    Args:
        reference: As given by the user.
        revision: A revision given separately, or None.

    Raises:
        UserError: two different revisions are given, or a revision for a folder.
    """
    if Path(reference).expanduser().exists():
        if revision is not None:
            raise UserError(f"{reference} is a folder on disk, which has no revision {revision}; leave that out")
        return reference, None
    name, _, behind = reference.rpartition("@")
    if not behind or not HUB_NAME.fullmatch(name):
        return reference, revision
    if revision not in (None, behind):
        raise UserError(f"{reference} and revision {revision} are two revisions; give one")
    return name, behind


def with_revision(reference: str, revision: str | None) -> str:
    """Append a revision to a reference with `@`, in the form that `split_revision` reads."""
    name, revision = split_revision(reference, revision)
    return name if revision is None else f"{name}@{revision}"


def why_not_loaded(reference: str, error: Exception) -> str:
    """Explain in one line why a model that the user named could not be loaded."""
    text = " ".join(str(error).split())
    if (refusal := hub_refusal(error, reference.partition("@")[0])) is not None:
        text = refusal
    elif "is not a valid model identifier" in text:
        text = (
            "there is no such folder, and no repository on the Hub that your access token shows; check the name, or "
            "log in with `hf auth login`"
        )
    elif "couldn't connect to" in text and "find them in the cached files" in text:
        text = "the Hub cannot be reached and the cache does not hold it; connect once, then run the same command again"
    return f"{reference} cannot be loaded as a model: {text}"


def hub_file(name: str, path: str, revision: str | None = None) -> Path | None:
    """Get a file of a Hub repository through the cache; None if the repository does not have the file.

    Raises:
        UserError: there is no such repository or revision; or the Hub is unreachable and the cache does not hold the
            file, so that it is unknown whether the repository has it.
    """
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils import cached_file

    try:
        found = cached_file(name, path, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(why_not_loaded(name, error)) from error
    if found is None and try_to_load_from_cache(name, path, revision=revision) is None:
        raise UserError(
            f"{name}: the Hub cannot be reached and the cache does not hold {path}; connect once, then run the same "
            "command again"
        )
    return None if found is None else Path(found)


def load_model(reference: str, revision: str | None = None) -> "LadderSiameseModel":
    """Load the online backbone of any model, in eval mode, in float32 on the CPU.

    Raises:
        UserError: there is no such model, or its files cannot be loaded.
    """
    import torch

    from modeling_ladder import LadderSiameseModel

    folder, revision = split_revision(model_folder(reference), revision)
    try:
        return LadderSiameseModel.from_pretrained(folder, dtype=torch.float32, revision=revision).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(why_not_loaded(reference, error)) from error
