"""Repositories of the local Hub: whole revisions, never changed once made."""

import hashlib
import json
from dataclasses import dataclass, field


def git_oid(content: bytes) -> str:
    """Git's SHA-1 of a blob, the Hub's checksum for files that are not LFS."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A whole revision: every path with its content; `lfs` names the paths stored as large files."""

    oid: str
    files: dict[str, bytes]
    lfs: frozenset[str]
    title: str
    parent: str | None


@dataclass
class Repo:
    """Branches and tags point at commits; a commit is replaced by nothing, only followed."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        """The commit behind a branch, a tag or a full commit id."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def add(self, branch: str, files: dict[str, bytes], lfs: frozenset[str], title: str) -> Commit:
        """Make the next revision of a branch, in one step."""
        parent = self.branches.get(branch)
        body = json.dumps([parent, title, len(self.commits), sorted((p, git_oid(c)) for p, c in files.items())])
        commit = Commit(hashlib.sha1(body.encode()).hexdigest(), dict(files), lfs, title, parent)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit


@dataclass
class HubStore:
    """All that the local Hub knows: users by access token, repositories by name, large files by SHA-256.

    `moved` gives the new names of repositories that were renamed.
    """

    users: dict[str, tuple[str, str]] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)

    def rename(self, old: str, new: str) -> None:
        """Give a repository another name; requests for the old one are sent on."""
        self.repos[new] = self.repos.pop(old)
        self.moved[old] = new

    def create(self, name: str, private: bool = False) -> Repo:
        """A new repository with the Hub's first commit."""
        repo = Repo(private)
        repo.add("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, frozenset(), "initial commit")
        self.repos[name] = repo
        return repo

    def history(self, name: str, branch: str = "main") -> list[Commit]:
        """The commits of a branch, newest first."""
        repo = self.repos[name]
        found, oid = [], repo.branches.get(branch)
        while oid is not None:
            found.append(repo.commits[oid])
            oid = found[-1].parent
        return found
