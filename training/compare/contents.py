"""What data sets and weights hold, wherever they lie: a cell belongs to the content that it was made from.

A folder that is moved as a whole keeps its content; another folder of the same name does not have it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.recipe import ResolvedRecipe
from ..data.content import describe_files
from ..data.sources import local_source
from ..errors import UserError
from ..files import looks_like_path
from ..models.reference import model_folder
from ..runs.data_files import began_with
from ..runs.run_folder import PRETRAINING

CONTENT = "_content"
"""Ending of the fields of a fingerprint that hold a content: "dataset_content" beside "dataset"."""
WEIGHT_FILES = "model*.safetensors"
"""The weights of a model: one file, or its shards."""
_HASH_LETTERS = 16


@dataclass
class Contents:
    """The contents of everything that a comparison reads, each looked at once.

    Attributes:
        known_files: (data set, split or None) -> what `files` returns.
        known_weights: Model -> what `weights` returns.
    """

    known_files: dict[tuple[str, str | None], dict[str, Any] | None] = field(default_factory=dict, repr=False)
    known_weights: dict[str, str | None] = field(default_factory=dict, repr=False)

    def data(self, reference: str | list[str] | None, split: str | None = None) -> str | None:
        """Describe the files of a data set: their number, their bytes and a hash of their names and contents.

        Args:
            reference: Name or path of a data set, or of several.
            split: Of which split; None: of all.

        Returns:
            None if nothing of it lies on this machine, or a part of it is a path that is not there.
        """
        references = [reference] if isinstance(reference, str) else reference or []
        found = [self.files(each, split) for each in references]
        known = [files for files in found if files]
        gone = any(files is None and looks_like_path(each) for each, files in zip(references, found, strict=True))
        if gone or not known:
            return None
        return "; ".join(f"{files['count']} files, {files['bytes']} bytes, {files['hash'][:12]}" for files in known)

    def files(self, reference: str, split: str | None = None) -> dict[str, Any] | None:
        """Return {"count", "bytes", "hash"} of the files of a data set; None if it does not lie on this machine."""
        key = (reference, split)
        if key not in self.known_files:
            self.known_files[key] = _described(reference, split)
        return self.known_files[key]

    def weights(self, reference: str | None) -> str | None:
        """Hash the weights of a model; None if there is no such folder on this machine."""
        if reference is None or not Path(reference).expanduser().exists():
            return None
        if reference not in self.known_weights:
            folder = Path(model_folder(reference))
            files = [*weight_files(folder), *weight_files(folder / PRETRAINING)]
            self.known_weights[reference] = hash_of_files(files) if files else None
        return self.known_weights[reference]

    def of_recipe(self, recipe: ResolvedRecipe) -> dict[str, str]:
        """Return the contents that decide a run's weights and its log, as far as they are known.

        Returns:
            "dataset_content", "eval_dataset_content" and "from_model_content".
        """
        data = recipe.data
        found = {
            "dataset": self.data(data.dataset, data.split),
            "eval_dataset": self.data(data.eval_dataset),
            "from_model": self.weights(recipe.model.from_model),
        }
        return {name + CONTENT: content for name, content in found.items() if content is not None}

    def are_those_of(self, folder: Path, recipe: ResolvedRecipe) -> bool | None:
        """Tell whether the run in a folder began with the images that the recipe's data sets hold now.

        Returns:
            None if that is not known: the run kept no list, or nothing of the data lies on this machine.
        """
        names = recipe.data.dataset
        names = [names] if isinstance(names, str) else list(names or [])
        now = [files["hash"] for name in names if (files := self.files(name, recipe.data.split))]
        then = began_with(folder)
        return now == then if now and then else None


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


def _described(reference: str, split: str | None) -> dict[str, Any] | None:
    try:
        source = local_source(reference)
    except UserError:  # who needs the data says what is wrong with it
        return None
    if source is None or split not in (None, *source.splits):
        return None
    found = [describe_files(source.folder, source.files(name), 0) for name in ([split] if split else source.splits)]
    if len(found) == 1:
        return found[0]
    together = "\n".join(f"{name}\0{files['hash']}" for name, files in zip(source.splits, found, strict=True))
    return {
        "count": sum(files["count"] for files in found),
        "bytes": sum(files["bytes"] for files in found),
        "hash": hashlib.blake2b(together.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest(),
    }
