"""What each address of the local Hub answers (facts from the client's own requests)."""

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import yaml

from .store import Commit, HubStore, Repo, git_oid

if TYPE_CHECKING:
    from .server import Request

LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".png", ".onnx")
Answer = tuple[int, dict[str, str], bytes]


class HubError(Exception):
    """An error answer, with the code that the client looks at."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def _json(data: object, status: int = 200) -> Answer:
    return status, {}, json.dumps(data).encode()


def _user(store: HubStore, request: "Request") -> tuple[str, str] | None:
    """The sender's (name, role); an unknown token is refused everywhere, on public repositories too."""
    if request.token is None:
        return None
    if request.token not in store.users:
        raise HubError(401, "Invalid credentials in Authorization header")
    return store.users[request.token]


def _repo(store: HubStore, request: "Request", name: str, *, write: bool = False) -> Repo:
    """Look a repository up as the Hub does: what may not be seen does not exist."""
    user = _user(store, request)
    repo = store.repos.get(name)
    visible = repo is not None and (not repo.private or (user is not None and user[0] == name.split("/")[0]))
    if repo is None or not visible:
        raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
    if write:
        if user is None:
            raise HubError(401, "Repository not found", "RepoNotFound")
        if user[0] != name.split("/")[0] or user[1] != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository")
    return repo


def _commit(repo: Repo, revision: str) -> Commit:
    commit = repo.resolve(revision)
    if commit is None:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _entry(commit: Commit, path: str) -> dict:
    content = commit.files[path]
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if path in commit.lfs:
        digest = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()
        entry |= {"oid": git_oid(pointer), "lfs": {"oid": digest, "size": len(content), "pointerSize": len(pointer)}}
    return entry


def answer(store: HubStore, request: "Request", url: str) -> Answer:
    """Answer a request, or raise `HubError`."""
    parts = request.parts
    for old, new in store.moved.items():
        if f"{request.path}/".startswith((f"/api/models/{old}/", f"/{old}/resolve/")):
            return 307, {"Location": url + request.path.replace(old, new, 1)}, b""
    if parts[:2] == ["api", "whoami-v2"]:
        user = _user(store, request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        token = {"accessToken": {"displayName": "test", "role": user[1]}, "type": "access_token"}
        return _json({"type": "user", "name": user[0], "auth": token})
    if parts == ["api", "repos", "create"]:
        return _create(store, request, url)
    if parts == ["api", "validate-yaml"]:
        return _validate_yaml(request)
    if parts[:2] == ["api", "models"] and len(parts) >= 4:
        return _models(store, request, f"{parts[2]}/{parts[3]}", parts[4:], url)
    if parts[0] == "lfs":
        return _large_file(store, request, parts)
    if request.path.endswith(".git/info/lfs/objects/batch"):
        return _batch(store, request, "/".join(parts[:2]).removesuffix(".git"), url)
    if len(parts) >= 5 and parts[2] == "resolve" and request.method in ("GET", "HEAD"):
        return _resolve(store, request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]), url)
    raise HubError(404, f"The local Hub knows no {request.method} {request.path}")


def _create(store: HubStore, request: "Request", url: str) -> Answer:
    user = _user(store, request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    data = request.json()
    name = f"{data.get('organization') or user[0]}/{data['name']}"
    if user[1] != "write" or name.split("/")[0] != user[0]:
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{name.split("/")[0]}"')
    if name in store.repos or name in store.moved:
        return 409, {}, json.dumps({"error": "You already created this model repo", "url": f"{url}/{name}"}).encode()
    store.create(name, private=data.get("visibility") == "private" or bool(data.get("private")))
    return _json({"url": f"{url}/{name}", "name": name})


def _validate_yaml(request: "Request") -> Answer:
    content = request.json()["content"]
    block = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", content)
    if block is None:
        return _json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        data = yaml.safe_load(block.group(2))
        if not isinstance(data, dict):
            raise ValueError("the metadata is no mapping")
    except (yaml.YAMLError, ValueError) as error:
        return _json({"errors": [{"message": str(error)}], "warnings": [], "error": "Invalid metadata"}, 400)
    return _json({"errors": [], "warnings": []})


def _models(store: HubStore, request: "Request", name: str, rest: list[str], url: str) -> Answer:
    action = rest[0] if rest else "info"
    if request.method == "POST" and action in ("commit", "preupload", "branch", "tag"):
        repo = _repo(store, request, name, write=True)
        return {"commit": _push, "preupload": _preupload, "branch": _branch, "tag": _tag}[action](
            store, repo, request, name, rest[1], url
        )
    repo = _repo(store, request, name)
    if action == "refs":
        rows = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
        found = {
            key: [{"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": oid} for ref, oid in refs.items()]
            for key, (kind, refs) in rows.items()
        }
        return _json(found | {"converts": []})
    commit = _commit(repo, rest[1] if len(rest) > 1 else "main")
    if action in ("info", "revision"):
        info = {"_id": name, "id": name, "modelId": name, "sha": commit.oid, "private": repo.private, "tags": []}
        return _json(info | {"siblings": [{"rfilename": path} for path in commit.files]})
    if action == "tree":
        folder = "/".join(rest[2:])
        paths = [path for path in sorted(commit.files) if not folder or path.startswith(folder + "/")]
        if folder and not paths:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        return _json([_entry(commit, path) for path in paths])
    if action == "paths-info":
        wanted = request.json()["paths"] if request.body[:1] == b"{" else _form(request).get("paths", [])
        return _json([_entry(commit, path) for path in wanted if path in commit.files])
    raise HubError(404, f"The local Hub knows no {request.path}")


def _form(request: "Request") -> dict[str, list[str]]:
    return parse_qs(request.body.decode())


def _preupload(store: HubStore, repo: Repo, request: "Request", name: str, revision: str, url: str) -> Answer:
    commit, found = _commit(repo, revision), []
    for item in request.json()["files"]:
        path = item["path"]
        large = path.endswith(LARGE_SUFFIXES) or item["size"] > 10 * 2**20
        oid = None
        if path in commit.files:
            entry = _entry(commit, path)
            oid = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        mode = "lfs" if large else "regular"
        found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return _json({"files": found})


def _batch(store: HubStore, request: "Request", name: str, url: str) -> Answer:
    _repo(store, request, name, write=True)
    objects = []
    for item in request.json()["objects"]:
        entry = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in store.large:
            actions = {"upload": f"{url}/lfs/{item['oid']}", "verify": f"{url}/lfs/verify/{item['oid']}"}
            entry["actions"] = {key: {"href": href} for key, href in actions.items()}
        objects.append(entry)
    return _json({"transfer": "basic", "objects": objects})


def _large_file(store: HubStore, request: "Request", parts: list[str]) -> Answer:
    if request.method == "PUT":
        if hashlib.sha256(request.body).hexdigest() != parts[1]:
            raise HubError(400, "the content does not have the announced SHA-256")
        store.large[parts[1]] = request.body
        return _json({})
    if request.method == "POST" and parts[1] == "verify":
        if request.json()["oid"] not in store.large:
            raise HubError(404, "no such large file")
        return _json({})
    if parts[1] not in store.large:
        raise HubError(404, "no such large file")
    return _content(request, store.large[parts[1]], {})


def _push(store: HubStore, repo: Repo, request: "Request", name: str, revision: str, url: str) -> Answer:
    lines = [json.loads(line) for line in request.body.splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if revision not in repo.branches:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    parent = repo.commits[repo.branches[revision]]
    if header.get("parentCommit") not in (None, parent.oid):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files, lfs = dict(parent.files), set(parent.lfs)
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
            lfs.discard(value["path"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in store.large:
                raise HubError(400, f"large file {value['oid']} was never uploaded")
            files[value["path"]] = store.large[value["oid"]]
            lfs.add(value["path"])
        elif line["key"] == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            lfs.discard(value["path"])
    commit = repo.add(revision, files, frozenset(lfs), header["summary"])
    return _json({"success": True, "commitOid": commit.oid, "commitUrl": f"{url}/{name}/commit/{commit.oid}"})


def _branch(store: HubStore, repo: Repo, request: "Request", name: str, branch: str, url: str) -> Answer:
    if branch in repo.branches:
        raise HubError(409, "Reference already exists")
    start = request.json().get("startingPoint") or "main" if request.body else "main"
    repo.branches[branch] = _commit(repo, start).oid
    return _json({})


def _tag(store: HubStore, repo: Repo, request: "Request", name: str, revision: str, url: str) -> Answer:
    tag = request.json()["tag"]
    if tag in repo.tags:
        raise HubError(409, "Tag reference exists already")
    repo.tags[tag] = _commit(repo, revision).oid
    return _json({})


def _resolve(store: HubStore, request: "Request", name: str, revision: str, path: str, url: str) -> Answer:
    commit = _commit(_repo(store, request, name), revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        body = json.dumps({"error": "Entry not found"}).encode()
        return 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, body
    content = commit.files[path]
    if path in commit.lfs:
        digest = hashlib.sha256(content).hexdigest()
        store.large[digest] = content
        # Another host, as the Hub's own store is: the client must not send its access token there.
        place = f"{url.replace('127.0.0.1', 'localhost')}/lfs/{digest}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": place}
        return 302, headers | linked | {"ETag": f'"{git_oid(content)}"', "Content-Length": "0"}, b""
    return _content(request, content, headers | {"ETag": f'"{git_oid(content)}"'})


def _content(request: "Request", content: bytes, headers: dict[str, str]) -> Answer:
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if found is None:
        return 200, headers | {"Content-Length": str(len(content))}, content
    start, end = int(found.group(1)), int(found.group(2) or len(content) - 1)
    part = content[start : end + 1]
    span = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(content)}", "Content-Length": str(len(part))}
    return 206, headers | span, part
