"""A run's model card: README.md and its figures, rebuilt from the run's files at any time."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from . import sections
from .comparison import comparison
from .errors import CardError
from .figures.training_figures import training_figures
from .files import write_whole
from .metadata import card_data, model_title, recipe_values
from .run_files import FIGURES, PRETRAINING, RunFiles, read_run_files, read_text
from .text import SLUG, one_line, plain, quantity, spoken
from .values import is_number, numbers

TEMPLATES = Path(__file__).parent / "templates"
BEGIN = "<!-- ladder-card: your text begins here -->"
END = "<!-- ladder-card: your text ends here -->"
HERE = "."
LOADS_AS_MODEL = ("resnet", "dinov2")
MADE_BY_CARD = ("loss.png", "knn.png", "collapse.png")
CAPTIONS = {
    "loss.png": "Loss of each stage during pretraining",
    "knn.png": "Accuracy of a vote of the nearest neighbours by the features of each stage, during pretraining",
    "collapse.png": "Signs of collapse: spread and effective rank of the projections at each stage",
}
SMALL_RUN = 10_000_000


@dataclass
class Card:
    """A card in memory.

    Attributes:
        text: The content of README.md.
        figures: File name below figures/ to the bytes of a PNG drawn from the log.
        kept: Names of existing files below figures/ that the text shows.
    """

    text: str
    figures: dict[str, bytes] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def build_card(
    run_dir: str | Path, *, repo_id: str | None = None, pretraining: bool | None = None, remote_code: bool = False
) -> Card:
    """Build a run's card in memory.

    Args:
        run_dir: A run's folder, or any folder with a native backbone.
        repo_id: The name from which the snippets load the model. None keeps the name on the last card; without one,
            the snippets load from the current folder.
        pretraining: Whether the snippets may use pretraining/. None checks whether the folder has it.
        remote_code: Whether pretraining/ contains its own code.

    Raises:
        CardError: The folder is not a run, a file is not valid JSON, or the marks of the hand-written section are
            damaged.
    """
    files = read_run_files(run_dir)
    old = files.path / "README.md"
    text = read_text(old)
    name = repo_id or _last_name(text)
    figures = training_figures(files.log)
    top = _best_picture([*files.figures, *figures])
    with_pretraining = bool(files.pretraining_config) if pretraining is None else pretraining
    parts = {
        "metadata": f"---\n{card_data(files).to_yaml().strip()}\n---",
        "name": name,
        "title": plain(model_title(files)),
        "intro": _intro(files),
        "picture": _pictures(top, files),
        "facts": sections.facts(files),
        "begin": BEGIN,
        "end": END,
        "hand_written": hand_written(text, old),
        "use": _use(files, name, with_pretraining, remote_code),
        "measured": _listed(_measured(files)),
        "sections": _listed(_sections(files, [name for name in figures if name not in top], top)),
        "citation": f"## Cite\n\n{_template('citation.md')}" if files.method else "",
    }
    return Card(_template("card.md", **parts).rstrip("\n") + "\n", figures, files.figures)


def write_card(
    run_dir: str | Path, *, repo_id: str | None = None, pretraining: bool | None = None, remote_code: bool = False
) -> Path:
    """Write README.md and the figures of a run's folder, and keep the hand-written section byte for byte.

    The same files give the same bytes. Every file is replaced as a whole, the figures before the text that shows them.

    Args:
        run_dir: A run's folder, or any folder with a native backbone.
        repo_id: See `build_card`.
        pretraining: See `build_card`.
        remote_code: See `build_card`.

    Returns:
        The path of README.md.

    Raises:
        CardError: As for `build_card`, or a file cannot be written.
    """
    card = build_card(run_dir, repo_id=repo_id, pretraining=pretraining, remote_code=remote_code)
    folder = Path(run_dir)
    try:
        for name, png in card.figures.items():
            write_whole(folder / FIGURES / name, png)
        write_whole(folder / "README.md", card.text.encode())
        for name in MADE_BY_CARD:
            if name not in card.figures:
                (folder / FIGURES / name).unlink(missing_ok=True)
    except OSError as error:
        raise CardError(f"the card of {folder} cannot be written: {error.strerror or error}") from error
    return folder / "README.md"


def hand_written(text: str, path: Path) -> str:
    """Find the hand-written text of an earlier README.md.

    Args:
        text: Content of README.md.
        path: Path of README.md, for messages.

    Returns:
        The section between the two marks, or the body of a README.md that this package did not write.

    Raises:
        CardError: One of the two marks is missing or repeated, so the text cannot be found without guessing.
    """
    # Only whole lines are marks, so the text itself may mention them.
    begins, ends = (re.findall(rf"(?m)^{re.escape(mark)}$", text) for mark in (BEGIN, END))
    if not begins and not ends and "<!-- ladder-card: name=" not in text:
        return re.sub(r"\A---\r?\n.*?\n---\r?\n", "", text, flags=re.DOTALL).strip("\n")
    if len(begins) != 1 or len(ends) != 1 or text.index(BEGIN + "\n") > text.rindex(END):
        raise CardError(
            f"{path}: the lines {BEGIN!r} and {END!r} must stand there once each, in this order; restore them, so "
            "that no hand-written text is lost, or remove README.md"
        )
    inside = re.search(rf"(?ms)^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}$", text)
    return inside.group(1).removesuffix("\n") if inside else ""


def _last_name(text: str) -> str:
    found = re.search(r"(?m)^<!-- ladder-card: name=(\S+) -->$", text)
    return found.group(1) if found and SLUG.fullmatch(found.group(1)) else HERE


def _intro(files: RunFiles) -> str:
    text = _template(f"intro_{files.method or 'unknown'}.md", architecture=_class_name(files))
    timm = files.config.get("model_type") == "timm_wrapper"
    return text.replace("without any other package", "with timm alone") if timm else text


def _use(files: RunFiles, name: str, pretraining: bool, remote_code: bool) -> str:
    size = files.preprocessor.get("crop_size") or files.preprocessor.get("size") or {}
    edge = size.get("height") or size.get("shortest_edge") if isinstance(size, dict) else size
    channels = files.config.get("num_channels", 3)
    values = {
        "name": name,
        "architecture": _class_name(files),
        "size": str(max(edge, 64) if isinstance(edge, int) and 0 < edge <= 1024 else 224),
        "channels": str(channels if isinstance(channels, int) and 0 < channels <= 64 else 3),
    }
    parts = []
    if name == HERE:
        parts.append("Run these in the folder of this file, or put its path in place of `.`.")
    if files.config.get("model_type") in LOADS_AS_MODEL and files.preprocessor:
        parts.append(_template("use_model.md", **values))
    if files.config.get("model_type") == "timm_wrapper":
        parts += [_template("use_timm.md", **values), _template("use_ladder.md", **values)]
    else:
        names = ("use_backbone.md", "use_ladder.md", "use_heads.md")
        parts += [_template(file, **values) for file in names]
    if pretraining:
        parts.append(_template("use_pretraining.md", **values))
    if pretraining and remote_code:
        parts.append(_template("use_pretraining_remote.md", **values))
    return "\n\n".join(parts)


def _best_picture(names: list[str]) -> list[str]:
    """The picture for the top of the card: what the stages see, or else how training went; none without pictures."""
    order = ("pca", "neighbours", "knn", "loss")
    found = [name for kind in order for name in reversed(names) if name.startswith(kind)]
    return found[:1]


def _measured(files: RunFiles) -> dict[str, str]:
    """What was measured: the sections before the code."""
    return {"Results": sections.results(files), "Compared with the same budget": comparison(files.comparison)}


def _sections(files: RunFiles, figures: list[str], top: list[str]) -> dict[str, str]:
    return {
        "Where the weights are from": sections.origin(files),
        "How it was trained": _joined(sections.levels(files), sections.training(files), _pictures(figures, files)),
        "What the stages see": _pictures([name for name in files.figures if name not in top], files),
        "What is the paper's and what is not": _template("method.md") if files.method else "",
        "Intended use and limits": _joined(
            _scale(files),
            _template("limits.md"),
            _template("limits_views.md", views=_views(files)) if files.method else "",
        ),
    }


def _listed(shown: dict[str, str]) -> str:
    """Sections with their headings, those without content left out."""
    return "".join(f"\n## {title}\n\n{body}\n" for title, body in shown.items() if body)


def _scale(files: RunFiles) -> str:
    seen = files.run.get("images_seen")
    if not isinstance(seen, (int, float)) or seen >= SMALL_RUN:
        return ""
    return (
        f"**A small run:** {quantity(seen)} images were seen, where published backbones of this kind see a hundred "
        "million and more. Take it as a demonstration or for images like those it was trained on."
    )


def _views(files: RunFiles) -> str:
    """List how the two views differ, by the recipe's probabilities. Fields that it does not set default to above 0."""
    values = recipe_values(files)
    kinds = {"flip": "mirroring", "jitter": "colour changes", "grayscale": "grey", "blur": "blur"}
    done = [name for field, name in kinds.items() if any(p != 0 for p in numbers(values.get(field, 1)))]
    return ", ".join(["crops", *done])


def _pictures(names: list[str], files: RunFiles) -> str:
    return "\n\n".join(f"![{_caption(name, files)}]({FIGURES}/{name})\n\n*{_caption(name, files)}.*" for name in names)


def _caption(name: str, files: RunFiles) -> str:
    count = files.run.get("monitoring_images")
    on = f", on {quantity(count)} held-out images" if is_number(count) and count else ""
    if name in CAPTIONS:
        return CAPTIONS[name] + (on if name != "loss.png" else "")
    kind, _, stage = name.removesuffix(".png").partition("-")
    of = plain(spoken(stage)) if stage else "every stage"
    if kind == "pca":
        return (
            f"What {of} sees: the main directions of its features as red, green and blue; equal colours, like features"
        )
    return f"Held-out images (left) and those most like them by the features of {of}"


def _class_name(files: RunFiles) -> str:
    names = files.config.get("architectures")
    name = one_line(names[0], 80) if isinstance(names, list) and names else ""
    known = re.fullmatch(r"[A-Za-z0-9]+Backbone|TimmWrapperModel", name)
    return name if known else "AutoBackbone"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _template(file: str, **values: str) -> str:
    text = (TEMPLATES / file).read_text(encoding="utf-8").strip("\n")
    return Template(text).substitute(values) if values else text


__all__ = ["PRETRAINING", "Card", "build_card", "hand_written", "write_card"]
