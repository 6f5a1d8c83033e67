"""Checkpoints that are either complete or absent: written under a temporary name, with checksums, then renamed.

Damaged checkpoints are renamed, and the one before is used.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path

from ..files import fsync

MANIFEST = "manifest.json"
NAME = re.compile(r"^checkpoint-(\d+)$")
PARTIAL_PREFIX = ".partial-"
DELETED_PREFIX = ".deleted-"

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


def publish_checkpoint(partial: Path, run_dir: Path, step: int) -> Path:
    """Turn a temporary folder into a checkpoint: write the checksums, fsync every file, rename the folder.

    Args:
        partial: The folder, named by `partial_folder`, with all files of the checkpoint.
        run_dir: Folder of the run.
        step: Number of optimizer steps so far.

    Returns:
        run_dir/checkpoint-STEP.
    """
    files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
    digests = {str(path.relative_to(partial)): _digest(path) for path in files}
    (partial / MANIFEST).write_text(json.dumps({"step": step, "files": digests}, indent=1), encoding="utf-8")
    for path in [*files, partial / MANIFEST, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        fsync(path)
    final, doomed = run_dir / f"checkpoint-{step}", run_dir / f"{DELETED_PREFIX}checkpoint-{step}"
    replaces = final.exists()
    if replaces:  # deleting takes time, so the old checkpoint is renamed now and deleted after the new one has its name
        if doomed.exists():
            shutil.rmtree(doomed)
        final.rename(doomed)
    partial.rename(final)
    fsync(run_dir)
    if replaces:
        shutil.rmtree(doomed, ignore_errors=True)
    return final


def remove_folder(folder: Path) -> None:
    """Rename a folder, then delete it, so that an interruption never leaves an incomplete folder under its name."""
    doomed = folder.with_name(DELETED_PREFIX + folder.name)
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    if not run_dir.is_dir():
        return []
    numbered = [(int(match.group(1)), path) for path in run_dir.iterdir() if (match := NAME.match(path.name))]
    return [path for _, path in sorted(numbered) if path.is_dir()]


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None if every file is as it was written."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _digest(path) != digest:
            return f"{name} is not as it was written"
    return None


def newest_valid_checkpoint(run_dir: str | os.PathLike) -> Path | None:
    """Find the newest complete checkpoint.

    Newer ones that are damaged are renamed to damaged-checkpoint-N, with a warning. The remains of interrupted writes
    and deletions are removed. Call it in one process only.

    Returns:
        The checkpoint's folder, or None if there is none.
    """
    run_dir = Path(run_dir)
    remove_leftovers(run_dir)
    for checkpoint in reversed(list_checkpoints(run_dir)):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        if aside.exists():
            shutil.rmtree(aside)
        checkpoint.rename(aside)
        logger.warning("%s is damaged (%s): set aside as %s, using the one before", checkpoint, reason, aside.name)
    return None


def remove_leftovers(run_dir: Path) -> None:
    """Remove the temporary files and folders of interrupted writes and deletions."""
    if not run_dir.is_dir():
        return
    for path in run_dir.iterdir():
        if path.name.startswith((PARTIAL_PREFIX, DELETED_PREFIX)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
