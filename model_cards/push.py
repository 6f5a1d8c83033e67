"""Publish a run to the Hub in one commit; after a failure that a retry can help, repeat the whole push."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import PushError
from .hub_errors import Trouble, clean
from .publish_plan import PlannedFile, PushPlan, plan_push, readable_size
from .retry import try_again
from .run_files import FIGURES, PRETRAINING


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Attributes:
        repo_id: "user/name".
        revision: The branch.
        commit: Full id of the commit that contains the files; None after a dry run.
        changed: Whether this push made a new commit.
        url: Address of the repository.
        tag: The tag of the commit.
        files: Paths of all files of the plan.
        deleted: Paths of an earlier push that this one removed.
    """

    repo_id: str
    revision: str
    commit: str | None
    changed: bool
    url: str
    tag: str | None = None
    files: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def push(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    include_pretraining: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    message: str | None = None,
    report: Callable[[str], None] | None = None,
    ending: threading.Event | None = None,
) -> PushResult:
    """Publish a run's folder: the native backbone, the card and its figures, and on request pretraining/.

    All files go in a single commit on top of the revision that was compared with, so readers see either the old or the
    new files. Files that the repository already has are not sent again; if nothing changed, no commit is made. After a
    dropped connection, a 429 or a server error, the whole push is repeated, after the time that the server asks for.

    Args:
        run_dir: See `plan_push`.
        repo_id: "user/name"; created if it does not exist.
        private: Create it as private. An existing public repository is refused.
        revision: Branch; created from main if it does not exist. None is main.
        tag: Tag for the new revision.
        include_pretraining: Send pretraining/ and its code too.
        dry_run: Only report what would be sent; no request is made and no file is written.
        token: Access token. None takes HF_TOKEN or the one of `hf auth login`.
        message: Commit message.
        report: Called with each line of progress. None prints them on stderr.
        ending: Once another thread sets it, a push that fails is not repeated.

    Raises:
        PushError: The push failed. The message says why, what the repository contains now, and what to do next.
        CardError: The card cannot be made.
    """
    report = report or _print
    report(f"checking the files of {run_dir}{'' if dry_run else ' and writing its card'} ...")
    plan = plan_push(
        run_dir,
        repo_id,
        private=private,
        revision=revision,
        tag=tag,
        include_pretraining=include_pretraining,
        write=not dry_run,
    )
    report(plan.describe())
    if dry_run:
        return PushResult(repo_id, plan.revision, None, False, _url(repo_id), tag, [file.path for file in plan.files])
    from huggingface_hub import get_token

    token = token or get_token()
    work = _Push(plan, token, message, report)
    try:
        return try_again(
            work.run,
            lambda trouble: _message(plan, work, trouble, token),
            repo_id=repo_id,
            token=token,
            report=report,
            ending=ending,
        )
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or a signal that the command line turns into an exit
        report(f"push to {_where(plan)} was interrupted. {_state(plan, work)}. Next: run the same command again")
        raise


def make_repository(
    name: str,
    *,
    private: bool = False,
    token: str | None = None,
    report: Callable[[str], None] | None = None,
) -> str:
    """Create a repository if it does not exist, so that a token without write access fails before a training.

    Args:
        name: "user/name", or only a name for the token's own user.
        private: Create it as private. An existing public repository is refused.
        token: See `push`.
        report: See `push`.

    Returns:
        "user/name".

    Raises:
        PushError: The repository cannot be created. The message says why and what to do next.
    """
    from huggingface_hub import HfApi, get_token

    token = token or get_token()
    api = HfApi(token=token, library_name="ladder-siamese")

    def make() -> str:
        found: str = api.create_repo(name, private=True if private else None, exist_ok=True).repo_id
        info = api.repo_info(found)
        _check_name(found, info.id)
        if private and info.private is False:
            raise PushError(
                f"{found} exists and is public; make it private in its settings on the Hub, or do not ask for private"
            )
        return found

    return try_again(
        make,
        lambda trouble: clean(f"{name} cannot be made on the Hub: {trouble.cause}. Next: {trouble.step}", token),
        repo_id=name,
        token=token,
        report=report or _print,
    )


class _Push:
    """A push that can be repeated and remembers how far it came.

    Attributes:
        done: What the last attempt is known to have published.
        asked: Whether any attempt has asked for the commit, whose answer may have been lost.
        before: The revision that the first attempt found; None if none did.
    """

    def __init__(self, plan: PushPlan, token: str | None, message: str | None, report: Callable[[str], None]) -> None:
        from huggingface_hub import HfApi

        self.plan, self.message, self.report = plan, message, report
        self.api = HfApi(token=token, library_name="ladder-siamese")
        self.done = "nothing"
        self.asked = False
        self.before: str | None = None

    def run(self) -> PushResult:
        """Make one attempt."""
        plan, api = self.plan, self.api
        self.done = "nothing"
        self.report(f"asking the Hub what {plan.repo_id} holds ...")
        api.create_repo(plan.repo_id, private=True if plan.private else None, exist_ok=True)
        if plan.revision != "main":
            _check_name(plan.repo_id, api.repo_info(plan.repo_id).id)
            api.create_branch(plan.repo_id, branch=plan.revision, exist_ok=True)
        info = api.repo_info(plan.repo_id, revision=plan.revision)
        _check_name(plan.repo_id, info.id)
        if plan.private and info.private is False:
            raise PushError(
                f"{plan.repo_id} exists and is public: nothing was sent; make it private in its settings on the Hub, "
                "or push without --private"
            )
        # If the answer to a commit got lost, the next attempt finds the commit. It still belongs to this push.
        self.before = self.before or info.sha
        held = self._held(info.sha)
        changed = [file for file in plan.files if not _same(file, held.get(file.path))]
        gone = _left_over(plan, held, changed)
        if plan.tag:
            self._check_tag(None if changed or gone else info.sha)
        commit = info.sha
        if changed or gone:
            size = readable_size(sum(file.size for file in changed))
            self.report(f"sending {len(changed)} files, {size}; {len(plan.files) - len(changed)} are there already")
            commit = self._commit(changed, gone, info.sha)
        else:
            self.report(f"{plan.repo_id} holds all of it already; no new commit")
        self.done = "files"
        if plan.tag:
            self._tag(commit)
        self.report(f"{_url(plan.repo_id)} is at {commit}")
        files = [file.path for file in plan.files]
        made = commit != self.before
        return PushResult(plan.repo_id, plan.revision, commit, made, _url(plan.repo_id), plan.tag, files, gone)

    def _held(self, commit: str) -> dict[str, Any]:
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.plan.repo_id, recursive=True, revision=commit)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _commit(self, changed: list[PlannedFile], gone: list[str], parent: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [CommitOperationAdd(file.path, file.source) for file in changed]
        operations += [CommitOperationDelete(path) for path in gone]
        message = self.message or f"Publish a Ladder Siamese backbone ({self.plan.folder.resolve().name})"
        self.asked = True
        commit: str = self.api.create_commit(
            self.plan.repo_id,
            operations,
            commit_message=message,
            revision=self.plan.revision,
            parent_commit=parent,
        ).oid
        return commit

    def _tags(self) -> dict[str, str]:
        return {ref.name: ref.target_commit for ref in self.api.list_repo_refs(self.plan.repo_id).tags}

    def _check_tag(self, goal: str | None) -> None:
        """Check before anything is sent that the tag is free or already at `goal`, because tags are never moved."""
        if self._tags().get(str(self.plan.tag), goal) != goal:
            raise PushError(
                f"{self.plan.repo_id} has a tag {self.plan.tag} already, for another revision: nothing was sent; "
                "choose another --tag"
            )

    def _tag(self, commit: str) -> None:
        self.done = "files, without the tag"
        tagged = self._tags().get(str(self.plan.tag))
        if tagged is None:
            self.api.create_tag(self.plan.repo_id, tag=self.plan.tag, revision=commit, exist_ok=True)
        elif tagged != commit:
            raise PushError(
                f"{self.plan.repo_id} holds the new files at {commit}, but {self.plan.tag} tags another revision; "
                "push again with another --tag"
            )


def _check_name(asked: str, found: str) -> None:
    """Check that the Hub has not sent the request on to a repository of another name.

    Raises:
        PushError: the repository was renamed. The card names the one that was asked for.
    """
    if found != asked:
        raise PushError(f"{asked} was renamed: on the Hub it is {found}. Nothing was sent. Next: push to {found}")


def _same(file: PlannedFile, held: Any) -> bool:
    """Tell by the Hub's checksums whether a repository's file has the content of a planned one."""
    from huggingface_hub.utils.sha import git_hash, sha_fileobj

    if held is None or held.size != file.size:
        return False
    if held.lfs is None:
        content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
        return bool(git_hash(content) == held.blob_id)
    if isinstance(file.source, bytes):
        import hashlib

        return bool(hashlib.sha256(file.source).hexdigest() == held.lfs.sha256)
    with file.source.open("rb") as stream:
        return bool(sha_fileobj(stream).hex() == held.lfs.sha256)


def _left_over(plan: PushPlan, held: dict[str, Any], changed: list[PlannedFile]) -> list[str]:
    """List the files of an earlier push that do not belong to this model.

    These are figures that are no longer shown, old shards, and a pretraining checkpoint of other weights.
    """
    planned = {file.path for file in plan.files}
    new_weights = any(file.path.endswith(".safetensors") and "/" not in file.path for file in changed)
    gone = []
    for path in sorted(held.keys() - planned):
        figure = path.startswith(f"{FIGURES}/") and path.endswith(".png")
        weights = "/" not in path and path.startswith("model") and path.endswith((".safetensors", ".index.json"))
        code = "/" not in path and path.endswith(".py") and f"{PRETRAINING}/{path}" in held
        pretraining = (code or path.startswith(f"{PRETRAINING}/")) and (new_weights or plan.pretraining)
        if figure or weights or pretraining:
            gone.append(path)
    return gone


def _message(plan: PushPlan, work: _Push, trouble: Trouble, token: str | None) -> str:
    return clean(f"push to {_where(plan)} failed: {trouble.cause}. {_state(plan, work)}. Next: {trouble.step}", token)


def _where(plan: PushPlan) -> str:
    return f"{plan.repo_id} ({plan.revision})"


def _state(plan: PushPlan, work: _Push) -> str:
    """What the repository holds after a push that did not come to its end."""
    if work.done != "nothing":
        return f"{_where(plan)} holds the new {work.done}"
    return f"{_where(plan)} holds its earlier revision or the new one, whole" if work.asked else "Nothing was sent"


def _url(repo_id: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo_id}"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
