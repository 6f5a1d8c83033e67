"""The page of `ladder explore` as a Hugging Face Space: a folder that starts from a clone."""

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

import yaml

from ladder_model_cards.text import one_line

from ..config.shell import command_words
from ..errors import UserError
from ..files import folder_written_at_once, looks_like_path, write_text
from .names import short_name
from .options import ExploreOptions

ABOUT = "What a backbone pretrained without labels sees. Written by `ladder explore --space`."
APP = '''"""Starts the page: `python app.py`."""

import os

from ladder_training.cli.entry import main

main([*{words!r}, "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")])
'''
PACKAGES = ("modeling_ladder", "ladder_model_cards", "ladder_training")


def write_space(options: ExploreOptions) -> Path:
    """Write the Space: the page's start, this package, what it needs, and the model and images that lie in folders.

    The Space carries this package's own files, so it shows what this version shows, and needs no release of it.

    Args:
        options: `space` is the folder. Models and data sets on the Hub are named, those in folders are copied.

    Returns:
        The folder.

    Raises:
        UserError: the folder is not empty, or a path that is to be copied into it does not exist.
    """
    target = Path(options.space or "space")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--space {target} is not empty; give a new folder")
    with folder_written_at_once(target) as folder:
        carried = {
            "model": _carried(options.model, folder / "model"),
            "dataset": _carried(options.dataset, folder / "images"),
            "beside": _carried(options.beside, folder / "beside") if options.beside else None,
        }
        same = {name: getattr(options, name) for name in ("split", "image_column", "label_column", "trust_paths")}
        words = command_words("explore", **carried, **same, host="0.0.0.0", output="embeddings")
        write_text(folder / "app.py", APP.format(words=words))
        write_text(folder / "requirements.txt", "\n".join(_requirements()) + "\n")
        for name in PACKAGES:
            _copy_package(name, folder)
        write_text(folder / "README.md", _readme(f"Explore {one_line(short_name(options.model))}"))
    return target


def _readme(title: str) -> str:
    """The Space's README.md, with the metadata that the Hub starts it from."""
    facts = {"title": title, "emoji": "🪜", "sdk": "gradio", "app_file": "app.py", "pinned": False}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=1000)}---\n\n{ABOUT}\n"


def _requirements() -> list[str]:
    """The packages that this one needs for the page, without those of other extras."""
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires("ladder-siamese") or []:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": "explore"}):
            needed.marker = None
            found.append(str(needed))
    return sorted(set(found))


def _copy_package(name: str, folder: Path) -> None:
    """Copy a package's files, without the backbones that come with it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    ignored = shutil.ignore_patterns("__pycache__", "backbones")
    shutil.copytree(Path(spec.origin).parent, folder / name, ignore=ignored)


def _carried(name: str, target: Path) -> str:
    """Copy a folder or file into the Space and return its path there; the name of something on the Hub stays.

    Raises:
        UserError: it is a path, and nothing is there.
    """
    source = Path(name).expanduser()
    if source.is_file():
        target.mkdir()
        shutil.copyfile(source, target / source.name)
        return f"{target.name}/{source.name}"
    if not source.is_dir():
        if looks_like_path(name):
            raise UserError(f"there is no {name}, which the Space would carry; give a folder, a file or a Hub name")
        return name
    ignored = shutil.ignore_patterns("checkpoint-*", "pretraining", ".*", "optimizer.pt")
    shutil.copytree(source, target, ignore=ignored)
    return target.name
