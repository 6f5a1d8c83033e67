"""Comparing a model's files with the Hub's checksums before they are loaded."""

from pathlib import Path

from ..errors import UserError
from .processor import processor_of
from .reference import model_folder, split_revision, why_not_loaded


def verified(reference: str, revision: str | None = None, subfolder: str | None = None) -> str:
    """Compare a model's files with the Hub's checksums before any of them is loaded.

    Args:
        reference: Hub name, downloaded folder or pushed run; the card or the cache tells its repository.
        revision: Branch, tag or commit.
        subfolder: Folder of the repository whose weights will be loaded; None means the root.

    Returns:
        The reference to load from. A Hub name gets the commit that was compared, so that just those files are loaded.

    Raises:
        UserError: a file differs from the Hub's, or the Hub is unreachable.
    """
    from ladder_model_cards import PushError, verify_checksums
    from modeling_ladder.checking import check_before_loading

    source, revision = split_revision(model_folder(reference), revision)
    try:
        if not Path(source).is_dir():
            check_before_loading(source, revision=revision, subfolder=subfolder or "")
            processor_of(source, revision=revision)
        files = verify_checksums(source, revision=revision)
    except PushError as error:
        raise UserError(str(error)) from error
    except (OSError, ValueError) as error:
        raise UserError(why_not_loaded(reference, error)) from error
    if files.differing or not files.checked:
        what = ", ".join(files.differing) or "no file at all"
        raise UserError(
            f"{what} in {files.folder} is not what {files.repo_id} holds on the Hub at {files.revision}: nothing was "
            f"loaded; get it again with `hf download {files.repo_id} --revision {files.revision} --force-download`"
        )
    print(f"{files.checked} files are as {files.repo_id} holds them at {files.revision}")
    return source if Path(source).is_dir() else f"{source}@{files.revision}"
