"""Checkpoints that are either complete or absent: written under a temporary name, with checksums, then renamed.

Damaged checkpoints are renamed, and the one before is used.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from ..files import PARTIAL_PREFIX, fsync, remove

MANIFEST = "manifest.json"
NAME = re.compile(r"^checkpoint-(\d+)$")
DELETED_PREFIX = ".deleted-"
REPLACED_PREFIX = ".replaced-"
Parts = Callable[[Set[str], int], str | None]
"""Given the names in a manifest and the number of processes, what is missing to resume from the checkpoint, or None."""

logger = logging.getLogger(__name__)


def _digest(path: Path) -> str:
    digest = hashlib.blake2b()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def partial_folder(run_dir: Path, step: int) -> Path:
    """Return the temporary folder in which the checkpoint of `step` is written."""
    return run_dir / f"{PARTIAL_PREFIX}checkpoint-{step}"


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Return the folder of the complete checkpoint of `step`."""
    return run_dir / f"checkpoint-{step}"


def publish_checkpoint(partial: Path, run_dir: Path, step: int, processes: int = 1) -> Path:
    """Turn a temporary folder into a checkpoint: write the checksums, fsync every file, rename the folder.

    Args:
        partial: The folder, named by `partial_folder`, with all files of the checkpoint.
        run_dir: Folder of the run.
        step: Number of optimizer steps so far.
        processes: Number of processes that train together.

    Returns:
        run_dir/checkpoint-STEP.
    """
    files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
    digests = {path.relative_to(partial).as_posix(): _digest(path) for path in files}
    manifest = {"step": step, "processes": processes, "files": digests}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in [*files, partial / MANIFEST, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        fsync(path)
    final, replaced = checkpoint_folder(run_dir, step), run_dir / f"{REPLACED_PREFIX}checkpoint-{step}"
    if not final.exists():
        partial.rename(final)
        fsync(run_dir)
        return final
    # Deleting takes time, so the old checkpoint is renamed now and deleted after the new one has its name. A kill
    # between the two renames is mended by `remove_leftovers`.
    remove(replaced)
    final.rename(replaced)
    try:
        partial.rename(final)
    except OSError:
        replaced.rename(final)
        raise
    fsync(run_dir)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def remove_folder(folder: Path) -> None:
    """Rename a folder, then delete it, so that an interruption never leaves an incomplete folder under its name."""
    doomed = folder.with_name(DELETED_PREFIX + folder.name)
    remove(doomed)
    folder.rename(doomed)
    with contextlib.suppress(OSError):
        remove(doomed)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    if not run_dir.is_dir():
        return []
    numbered = [(int(match.group(1)), path) for path in run_dir.iterdir() if (match := NAME.match(path.name))]
    return [path for _, path in sorted(numbered) if path.is_dir()]


def damage(checkpoint: Path, parts: Parts | None = None) -> str | None:
    """Find what is wrong with a checkpoint.

    Args:
        checkpoint: The folder.
        parts: Names what a complete checkpoint needs. Default: what the manifest lists is enough.

    Returns:
        The first fault, or None if every file is as it was written.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        files, processes = _listed(manifest)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _digest(path) != digest:
            return f"{name} is not as it was written"
    missing = parts(files.keys(), processes) if parts is not None else None
    return None if missing is None else f"{missing} is missing, also in its {MANIFEST}"


def _listed(manifest: Any) -> tuple[dict[str, str], int]:
    """The files of a manifest with their checksums, and the number of processes. Raises if it is no manifest."""
    files, processes = manifest["files"], manifest.get("processes", 1)
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise TypeError("its files have no checksums")
    if not isinstance(processes, int) or not 1 <= processes <= 1_000_000:
        raise TypeError(f"{processes!r} is no number of processes")
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ValueError("it lists files outside the checkpoint")
    return files, processes


def newest_valid_checkpoint(run_dir: str | os.PathLike, parts: Parts | None = None) -> Path | None:
    """Find the newest complete checkpoint.

    Newer ones that are damaged are renamed to damaged-checkpoint-N, with a warning. The remains of interrupted writes
    and deletions are removed. Call it in one process only.

    Args:
        run_dir: Folder of the run.
        parts: As for `damage`.

    Returns:
        The checkpoint's folder, or None if there is none.
    """
    run_dir = Path(run_dir)
    remove_leftovers(run_dir)
    for checkpoint in reversed(list_checkpoints(run_dir)):
        reason = damage(checkpoint, parts)
        if reason is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        remove(aside)
        checkpoint.rename(aside)
        logger.warning("%s is damaged (%s): set aside as %s, using the one before", checkpoint, reason, aside.name)
    return None


def is_leftover(path: Path) -> bool:
    """Tell whether a name in a run's folder is that of something which is being written or deleted."""
    return path.name.startswith((PARTIAL_PREFIX, DELETED_PREFIX, REPLACED_PREFIX))


def remove_leftovers(run_dir: Path) -> None:
    """Remove the temporary files and folders of interrupted writes and deletions.

    A checkpoint that was being replaced by a new one of the same step is kept: the new one if it is complete, else the
    old one.
    """
    if not run_dir.is_dir():
        return
    for replaced in run_dir.glob(f"{REPLACED_PREFIX}checkpoint-*"):
        final = run_dir / replaced.name.removeprefix(REPLACED_PREFIX)
        partial = run_dir / f"{PARTIAL_PREFIX}{final.name}"
        if not final.exists():
            (partial if damage(partial) is None else replaced).rename(final)
    for folder in (run_dir, run_dir / "figures"):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if is_leftover(path):
                remove(path)


def rotate_checkpoints(run_dir: Path, limit: int | None, keep: Path | None = None) -> None:
    """Delete the oldest checkpoints so that `limit` remain. The newest one and `keep` are never deleted.

    Args:
        run_dir: Folder of the run.
        limit: Number of checkpoints to keep; None or 0 keeps all.
        keep: A checkpoint to keep besides, for example the best one.
    """
    if limit is None or limit <= 0:
        return
    checkpoints = list_checkpoints(run_dir)
    for checkpoint in checkpoints[: max(0, len(checkpoints) - max(limit, 1))]:
        if keep is None or checkpoint.resolve() != Path(keep).resolve():
            remove_folder(checkpoint)
