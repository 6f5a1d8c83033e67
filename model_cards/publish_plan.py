"""List which files of a folder are published, and check that they may be."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .card import build_card, write_card
from .errors import PushError
from .remote_code import AUTO_MAP, remote_code_files
from .run_files import FIGURES, PRETRAINING
from .secrets import holds_secret

PNG = b"\x89PNG\r\n\x1a\n"
SHARDS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SHOWN = re.compile(rf"\]\(({FIGURES}/[\w.-]+\.png)\)")
REPO_ID = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?/[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class PlannedFile:
    """One file of a push: its path in the repository, and its content as a local file or as bytes."""

    path: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass
class PushPlan:
    """The files that a push sends, and where to."""

    folder: Path
    repo_id: str
    revision: str = "main"
    private: bool = False
    tag: str | None = None
    pretraining: bool = False
    files: list[PlannedFile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return sum(file.size for file in self.files)

    def describe(self) -> str:
        """Describe the plan in lines of text: the repository, every file with its size, the total."""
        tag = f", tag {self.tag}" if self.tag else ""
        width = max(len(file.path) for file in self.files)
        private = ", private" if self.private else ""
        lines = [f"{self.folder} to {self.repo_id} ({self.revision}{tag}{private})"]
        lines += [f"  {file.path:<{width}}  {readable_size(file.size):>9}" for file in self.files]
        lines.append(f"  {len(self.files)} files, {readable_size(self.size)}, in one commit")
        return "\n".join(lines)


def readable_size(size: int) -> str:
    """Write a number of bytes with a unit."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def plan_push(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    include_pretraining: bool = False,
    write: bool = False,
) -> PushPlan:
    """List the files that `push` would send, and check them. No request is made.

    The root of the repository gets the native backbone (config.json, safetensors), preprocessor_config.json, the card
    and the figures that it shows. `include_pretraining` adds pretraining/ and the code that loads it, both in
    pretraining/ and at the root, where transformers looks for code. Nothing else in the folder is ever sent.

    Args:
        run_dir: A run's folder, or a folder with a native backbone.
        repo_id: "user/name".
        private: Create a new repository as private.
        revision: Branch; None is main.
        tag: Tag for the new revision.
        include_pretraining: Also send the checkpoint from which pretraining can continue.
        write: Write the card to the folder. Otherwise it is made in memory and the folder stays as it is.

    Raises:
        PushError: The Hub would refuse a name; the folder has no native backbone; weights are damaged, not finite or
            pickled; or a file contains an access token.
        CardError: The card cannot be made.
    """
    folder = Path(run_dir)
    _check_names(repo_id, revision, tag)
    _check_native(folder)
    if include_pretraining and not (folder / PRETRAINING / "config.json").is_file():
        raise PushError(f"{folder} has no {PRETRAINING}/ to send; leave out --pretraining, or give a run's folder")
    files = [PlannedFile("config.json", folder / "config.json"), *_weights(folder, "")]
    if (folder / "preprocessor_config.json").is_file():
        files.append(PlannedFile("preprocessor_config.json", folder / "preprocessor_config.json"))
    files += _card_files(folder, repo_id, include_pretraining, write)
    if include_pretraining:
        files += _pretraining_files(folder / PRETRAINING)
    _refuse_links_out(folder, files)
    plan = PushPlan(folder, repo_id, revision or "main", private, tag, include_pretraining, sorted(files, key=_order))
    _refuse_secrets(plan)
    return plan


def _check_names(repo_id: str, revision: str | None, tag: str | None) -> None:
    if not REPO_ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id or repo_id.endswith(".git"):
        raise PushError(f"{repo_id!r} is no repository name; give USER/NAME, of letters, digits, '-', '_' and '.'")
    for what, name in (("revision", revision), ("tag", tag)):
        if name is not None and (not re.fullmatch(r"[\w][\w./-]*", name) or ".." in name or name.endswith(("/", "."))):
            raise PushError(
                f"{what} {name!r} is no name of a branch or tag; use letters, digits, '-', '_', '.' and '/'"
            )
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PushError(f"revision {revision} is a commit; a push goes to a branch")


def _check_native(folder: Path) -> None:
    """Check that transformers can load the model at the root without this package's code."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    path = folder / "config.json"
    if not path.is_file():
        raise PushError(f"{folder} holds no config.json; give the folder of a finished run or of an exported backbone")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise PushError(f"{path} is no valid JSON; export the model again") from None
    if not isinstance(config, dict) or config.get("model_type") not in CONFIG_MAPPING_NAMES or "auto_map" in config:
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise PushError(
            f"{folder} holds no native transformers backbone but {str(kind)!r}, which others could not load; "
            "give the run's folder, or make one with `ladder export --format transformers`"
        )


def _weights(folder: Path, prefix: str) -> list[PlannedFile]:
    """List a folder's safetensors files after checking all their values."""
    from modeling_ladder.checking import check_weights

    try:
        check_weights(folder)
    except ValueError as error:
        raise PushError(str(error)) from None
    names = ["model.safetensors"]
    if not (folder / names[0]).is_file():
        names = ["model.safetensors.index.json", *sorted(p.name for p in folder.iterdir() if SHARDS.fullmatch(p.name))]
    for name in names:
        if name.endswith(".safetensors"):
            _check_finite(folder / name)
    return [PlannedFile(prefix + name, folder / name) for name in names]


def _check_finite(path: Path) -> None:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (a safetensors file is no dictionary)
            tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise PushError(f"{path}: tensor {name!r} holds NaN or infinity; publish an earlier checkpoint")


def _card_files(folder: Path, repo_id: str, pretraining: bool, write: bool) -> list[PlannedFile]:
    options: dict[str, Any] = {"repo_id": repo_id, "pretraining": pretraining, "remote_code": pretraining}
    if write:
        text = write_card(folder, **options).read_text(encoding="utf-8")
        made: dict[str, bytes] = {}
        found = [PlannedFile("README.md", folder / "README.md")]
    else:
        card = build_card(folder, **options)
        text, made = card.text, card.figures
        found = [PlannedFile("README.md", text.encode())]
    for path in dict.fromkeys(SHOWN.findall(text)):
        name = path.removeprefix(f"{FIGURES}/")
        if name in made:
            found.append(PlannedFile(path, made[name]))
        elif (folder / path).is_file():
            found.append(PlannedFile(path, folder / path))
    return found


def _pretraining_files(folder: Path) -> list[PlannedFile]:
    code = remote_code_files()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {**AUTO_MAP, **(config.get("auto_map") or {})}
    content = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    files = [PlannedFile(f"{PRETRAINING}/config.json", content), *_weights(folder, f"{PRETRAINING}/")]
    if (folder / "preprocessor_config.json").is_file():
        path = folder / "preprocessor_config.json"
        files.append(PlannedFile(f"{PRETRAINING}/preprocessor_config.json", path))
    for name, source in code.items():
        files += [PlannedFile(name, source), PlannedFile(f"{PRETRAINING}/{name}", source)]
    return files


def _refuse_links_out(folder: Path, files: list[PlannedFile]) -> None:
    """Refuse links to files outside the folder: a folder from somebody else could publish any file of this machine.

    Snapshots in the Hub's cache are allowed to link to the files in their own blobs/.
    """
    places = [folder.resolve()]
    if places[0].parent.name == "snapshots":
        places.append(places[0].parent.parent / "blobs")
    for file in files:
        if isinstance(file.source, Path) and file.source.is_relative_to(folder):
            real = file.source.resolve()
            if not any(place in real.parents for place in places):
                raise PushError(f"{file.source} is a link to {real}, outside the folder: nothing was sent; copy it in")
            if file.path.endswith(".png") and real.read_bytes()[:8] != PNG:
                raise PushError(f"{file.source} is no PNG picture: nothing was sent; remove it, then push again")


def _refuse_secrets(plan: PushPlan) -> None:
    """Refuse to publish a file that contains an access token, such as a recipe, a card or a config."""
    for file in plan.files:
        if file.path.endswith((".md", ".json", ".py")) and file.size < 50 * 2**20:
            content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
            if holds_secret(content.decode("utf-8", "replace")):
                raise PushError(f"{file.path} holds what looks like an access token; take it out, then push again")


def _order(file: PlannedFile) -> tuple[bool, str]:
    return "/" in file.path, file.path
