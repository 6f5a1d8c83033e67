"""Compare files on disk with the Hub's checksums, because a flipped byte would otherwise go unnoticed."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import PushError
from .hub_errors import clean, explain

SNAPSHOT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})$")
CARD_NAME = re.compile(r"(?m)^<!-- ladder-card: name=(\S+/\S+) -->$")


@dataclass(frozen=True)
class Verification:
    """The result of a comparison.

    Attributes:
        repo_id: "user/name".
        revision: The full id of the commit that was compared with.
        folder: The folder that was checked.
        checked: Number of files compared.
        differing: Paths whose content differs from the Hub's.
        missing: Paths that only the Hub has. This is normal, because loading fetches only the files that it needs.
    """

    repo_id: str
    revision: str
    folder: Path
    checked: int
    differing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether at least one file was compared and none differs."""
        return self.checked > 0 and not self.differing


def verify_checksums(
    repo_or_folder: str | Path, *, repo_id: str | None = None, revision: str | None = None, token: str | None = None
) -> Verification:
    """Compare a cached repo, a downloaded folder or a pushed run with the Hub's checksums.

    Args:
        repo_or_folder: A Hub name, whose files in the cache are compared, or a folder.
        repo_id: The repository to compare a folder with. None reads it from the path in the cache or from the card.
        revision: Branch, tag or commit. None is main, or the commit of a folder in the cache.
        token: Access token. None takes HF_TOKEN or the one of `hf auth login`.

    Raises:
        PushError: There is nothing to compare, or the Hub cannot be reached. The message says what to do next.
    """
    from huggingface_hub import HfApi, get_token

    folder = Path(repo_or_folder) if Path(repo_or_folder).is_dir() else None
    if folder is not None:
        found = SNAPSHOT.search(folder.resolve().as_posix())
        if found:
            repo_id = repo_id or f"{found.group(1)}/{found.group(2)}"
            revision = revision or found.group(3)
        repo_id = repo_id or _name_on_card(folder)
        if repo_id is None:
            raise PushError(f"{folder} does not say which repository it belongs to; give its USER/NAME")
    else:
        repo_id = str(repo_or_folder)
    token = token or get_token()
    try:
        result = HfApi(token=token).verify_repo_checksums(repo_id, revision=revision, local_dir=folder)
    except ValueError as error:
        raise PushError(f"{clean(str(error), token)}. Next: load {repo_id} once, then verify") from None
    except Exception as error:
        trouble = explain(error, repo_id, has_token=token is not None)
        raise PushError(clean(f"{repo_id} was not verified: {trouble.cause}. Next: {trouble.step}", token)) from None
    return Verification(
        repo_id,
        result.revision,
        Path(result.verified_path),
        result.checked_count,
        [entry["path"] for entry in result.mismatches],
        list(result.missing_paths),
    )


def _name_on_card(folder: Path) -> str | None:
    card = folder / "README.md"
    found = CARD_NAME.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return found.group(1) if found else None
