"""What data sets and weights hold, wherever they lie: a cell belongs to the content that it was made from.

A folder that is moved as a whole keeps its content; another folder of the same name does not have it.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.recipe import ResolvedRecipe
from ..data.content import describe_files
from ..data.sources import hub_dataset, local_source
from ..errors import UserError
from ..files import looks_like_path
from ..models.weight_files import hash_of_weights
from ..runs.data_files import began_with
from ..runs.record import RunRecord

CONTENT = "_content"
"""Ending of the fields of a fingerprint that hold a content: "dataset_content" beside "dataset"."""
COMMIT = "_commit"
"""Ending of the fields that hold the commits of data sets on the Hub: "dataset_commit" beside "dataset"."""


@dataclass
class Contents:
    """The contents of everything that a comparison reads, each looked at once.

    Attributes:
        known_files: (data set, split or None) -> what `files` returns.
        known_weights: Model -> what `weights` returns.
        known_commits: (data set, revision or None) -> its name and commit on the Hub.
    """

    known_files: dict[tuple[str, str | None], dict[str, Any] | None] = field(default_factory=dict, repr=False)
    known_weights: dict[str, str | None] = field(default_factory=dict, repr=False)
    known_commits: dict[tuple[str, str | None], tuple[str | None, str | None]] = field(default_factory=dict, repr=False)

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

    def commit(self, reference: str | list[str] | None, revision: str | None = None) -> str | None:
        """Return the commit that the Hub has of a data set, or of several, those on this machine left out.

        Args:
            reference: Name or path of a data set, or of several.
            revision: Branch, tag or commit.

        Returns:
            None if none of them lies on the Hub, or it does not tell a commit.
        """
        references = [reference] if isinstance(reference, str) else reference or []
        for each in references:
            if (each, revision) not in self.known_commits:
                self.known_commits[each, revision] = _commit(each, revision)
        found = [self.known_commits[each, revision] for each in references]
        commits = [commit for name, commit in found if name is not None]
        return "; ".join(str(commit) for commit in commits) if commits and None not in commits else None

    def weights(self, reference: str | None) -> str | None:
        """Hash the weights of a model; None if there is no such folder on this machine."""
        if reference is None or not Path(reference).expanduser().exists():
            return None
        if reference not in self.known_weights:
            self.known_weights[reference] = hash_of_weights(reference)
        return self.known_weights[reference]

    def of_recipe(self, recipe: ResolvedRecipe) -> dict[str, str]:
        """Return the contents that decide a run's weights and its log, as far as they are known.

        Returns:
            "dataset_content", "eval_dataset_content", "from_model_content", "dataset_commit" and
            "eval_dataset_commit".
        """
        data = recipe.data
        found = {
            "dataset" + CONTENT: self.data(data.dataset, data.split),
            "eval_dataset" + CONTENT: self.data(data.eval_dataset),
            "from_model" + CONTENT: self.weights(recipe.model.from_model),
            "dataset" + COMMIT: self.commit(data.dataset, data.revision),
            "eval_dataset" + COMMIT: self.commit(data.eval_dataset),
        }
        return {name: content for name, content in found.items() if content is not None}

    def of_evaluation(self, dataset: str, test_dataset: str | None) -> dict[str, str]:
        """Return the contents that decide an evaluation's result, as far as they are known.

        Returns:
            "dataset_content", "test_dataset_content", "dataset_commit" and "test_dataset_commit".
        """
        places = {"dataset": dataset, "test_dataset": test_dataset}
        found = {name + CONTENT: self.data(place) for name, place in places.items()}
        found |= {name + COMMIT: self.commit(place) for name, place in places.items()}
        return {name: content for name, content in found.items() if content is not None}

    def are_those_of(self, folder: Path, recipe: ResolvedRecipe) -> bool | None:
        """Tell whether the run in a folder began with the images that the recipe's data sets hold now.

        Returns:
            None if that is not known: the run kept no list and no commit, or nothing of the data lies on this machine
            and the Hub tells no commit.
        """
        names = recipe.data.dataset
        names = [names] if isinstance(names, str) else list(names or [])
        now = [files["hash"] for name in names if (files := self.files(name, recipe.data.split))]
        then = began_with(folder)
        run = RunRecord.read(folder)
        commits = [part.revision for part in run.datasets if part.hub is not None] if run is not None else []
        commit = self.commit(names, recipe.data.revision)
        same = [now == then] if now and then else []
        same += ["; ".join(map(str, commits)) == commit] if commit and commits and None not in commits else []
        return all(same) if same else None


def _commit(reference: str, revision: str | None) -> tuple[str | None, str | None]:
    try:
        return hub_dataset(reference, revision)
    except UserError:  # who needs the data says what is wrong with it
        return None, None


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
