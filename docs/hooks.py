"""Pages of the reference that are made from the code: every command's help, and every field of a recipe."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from ladder_model_cards.figures.style import DARK, LIGHT, css
from ladder_training.cli.commands import COMMANDS
from ladder_training.cli.entry import main
from ladder_training.config.fields import default_of, fields_of
from ladder_training.config.recipe import OWN_GROUPS, packaged_recipes, read_recipe

SEES = "model_cards/backbones/imagenette96-ladder/figures/pca.png"
"""What the backbone in the box sees: a picture of the repository that pages show."""
PICTURE = "pictures/backbone.png"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the colours and fonts of the figures, to the site."""
    files.append(File.generated(config, "style.css", content=site_style()))
    files.append(File.generated(config, PICTURE, content=(Path(config.docs_dir).parent / SEES).read_bytes()))
    for uri, content in (("reference/commands.md", commands_page()), ("reference/recipes.md", recipes_page())):
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository that are no page of the site (recipes, cells, scripts) into plain text.

    The picture of what the backbone in the box sees lies outside docs/ too; the site has a copy.
    """
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(SEES)}\)", f"]({up}{PICTURE})", markdown)
    here = Path(page.file.abs_src_path).parent if page.file.abs_src_path else Path(config.docs_dir)
    docs = Path(config.docs_dir).resolve()

    def plain(match: re.Match[str]) -> str:
        target = (here / match[2].partition("#")[0]).resolve()
        outside = docs not in target.parents and target != docs
        return match[1] if outside or target.is_dir() else match[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)", plain, markdown)


def site_style() -> str:
    """The site in the colours and fonts of the figures."""
    named = "--md-text-font:var(--font);--md-primary-fg-color:{0};--md-accent-fg-color:{0};--md-typeset-a-color:{0};"
    return (
        f"{css()}body{{font-family:var(--font)}}"
        f"[data-md-color-scheme=default]{{{named.format(LIGHT.series[0])}}}"
        f"[data-md-color-scheme=slate]{{{named.format(DARK.series[0])}--md-primary-fg-color:{LIGHT.series[5]};}}"
        ".md-typeset h1{font-weight:600;color:inherit}.md-typeset table:not([class]){font-size:.7rem}"
    )


def commands_page() -> str:
    """The help of every command and every evaluation task, as the command line prints it."""
    parts = ["# Commands", "Made from the parsers: this is what `ladder COMMAND --help` prints."]
    for name, command in COMMANDS.items():
        parts += [f"## ladder {name}", f"```text\n{_help([name])}\n```"]
        parts += [f"### ladder {name} {task}\n\n```text\n{_help([name, task])}\n```" for task in command.tasks or ()]
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """Every field of a recipe that is our own, with its type, default and meaning; and the packaged recipes."""
    parts = [
        "# Recipes",
        "A recipe is a flat YAML file. Every field below, and every field of transformers' `TrainingArguments`, can "
        "stand in it or be given as an option (`--max_steps 40`).",
    ]
    for title, group in OWN_GROUPS.items():
        rows = ["| field | default | meaning |", "|---|---|---|"]
        for name, (_, item) in fields_of(group).items():
            text = " ".join(str(item.metadata.get("help", "")).split()).replace("|", "\\|")
            rows.append(f"| `{name}` | `{default_of(item)}` | {text} |")
        parts += [f"## {title.capitalize()}", "\n".join(rows)]
    parts.append("## Packaged recipes")
    for name in packaged_recipes():
        parts += [f"### {name}", f"```yaml\n{read_recipe(name).text.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _help(words: list[str]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        main([*words, "--help"])
    return output.getvalue().strip()
