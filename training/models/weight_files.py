"""The weights of a model as files, and what tells them from other weights."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .reference import model_folder, split_revision

WEIGHT_FILES = "model*.safetensors"
"""The weights of a model: one file, or its shards."""
_PLACES = ("", "pretraining/")
_HASH_LETTERS = 16


def weight_files(folder: Path) -> list[Path]:
    """List the files of a model's weights."""
    return sorted(folder.glob(WEIGHT_FILES))


def hash_of_files(paths: Iterable[Path]) -> str:
    """Hash the bytes of files, one after the other; the first 16 digits of their SHA-256."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:_HASH_LETTERS]


def hash_of_weights(reference: str) -> str | None:
    """Hash the weights of a model and of its `pretraining/`.

    Args:
        reference: A folder, or a Hub name whose weights are in the cache: nothing is downloaded.

    Returns:
        None if there are none on this machine.

    Raises:
        UserError: there is no such folder, or it holds no model.
    """
    name, revision = split_revision(reference)
    if Path(name).expanduser().exists():
        folder = Path(model_folder(name))
        files = [path for place in _PLACES for path in weight_files(folder / place)]
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = (try_to_load_from_cache(name, f"{place}model.safetensors", revision=revision) for place in _PLACES)
        files = [Path(path) for path in cached if isinstance(path, str)][:1]
    return hash_of_files(files) if files else None
