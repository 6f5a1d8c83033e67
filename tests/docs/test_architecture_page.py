"""The pages for contributors: whatever they name exists, and the picture shows the arrows of the code."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/architecture.md", "README.md", "CONTRIBUTING.md")
PACKAGES = {"modeling_ladder": "modeling_ladder", "ladder_training": "training", "ladder_model_cards": "model_cards"}
FOLDERS = ("training", "modeling_ladder", "model_cards", "tests", "docs", "benchmarks", "examples")
IN_CODE = re.compile(r"`([^`\n]+)`")


def text_of(page: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"))


def missing_paths(text: str) -> list[str]:
    """Paths in code spans that lie below one of our folders and do not exist; `<room>` stands for any name."""
    words = [word for span in IN_CODE.findall(text) for word in span.split()]
    paths = [word for word in words if re.match(rf"({'|'.join(FOLDERS)})/", word) and "<" not in word]
    return [path for path in paths if not (ROOT / path).exists()]


def missing_modules(text: str) -> list[str]:
    """Dotted names such as `ladder_training.config.recipe.resolve` whose module does not exist."""
    found = []
    for name in re.findall(rf"\b((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", text):
        package, *parts = name.split(".")
        folder = ROOT / PACKAGES[package]
        while parts and (folder / parts[0]).is_dir():
            folder = folder / parts.pop(0)
        inside = (folder / "__init__.py").read_text(encoding="utf-8")
        if parts and not (folder / f"{parts[0]}.py").is_file() and parts[0] not in inside:
            found.append(name)
    return found


def names_defined(folder: str) -> set[str]:
    """Every function, class, method, constant and field below a folder."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    assert not (missing := missing_paths(text_of(page))), missing
    assert not (missing := missing_modules(text_of(page))), missing


def test_a_missing_file_or_module_is_found() -> None:
    assert missing_paths("`training/gone.py` and `training/errors.py`") == ["training/gone.py"]
    assert missing_modules("ladder_training.data.gone and ladder_training.data.sources.load_image_stream") == [
        "ladder_training.data.gone"
    ]


def test_every_class_function_and_table_on_the_map_exists() -> None:
    spans = IN_CODE.findall(text_of("docs/architecture.md"))
    wanted = {span for span in spans if re.fullmatch(r"[A-Z]\w+|[a-z]+(_[a-z]+)+", span)}
    defined = set().union(*(names_defined(folder) for folder in PACKAGES.values())) | set(PACKAGES)
    assert {"TwoViewTransform", "WRITERS", "update_target"} <= wanted
    # Arguments and output fields are names too.
    words = {"pixel_values", "view_boxes", "view_flips", "backbone_config"}
    assert not (missing := wanted - defined - words), missing


def test_every_room_is_on_the_map() -> None:
    page = text_of("docs/architecture.md")
    rooms = [path.name for path in (ROOT / "training").iterdir() if (path / "__init__.py").is_file()]
    assert len(rooms) > 10
    assert [room for room in rooms if f"| `training/{room}/` |" not in page] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [room for room in rooms if f"{room}/" not in readme] == []


def test_the_picture_shows_the_arrows_of_the_code() -> None:
    path = ROOT / "docs" / "draw_floors.py"
    spec = importlib.util.spec_from_file_location("draw_floors", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    svg = (ROOT / "docs" / "floors.svg").read_text(encoding="utf-8")
    arrows = {f"{room}-to-{target}" for room, targets in script.drawn_arrows().items() for target in targets}
    assert len(arrows) > 15
    assert set(re.findall(r'id="(\w+-to-\w+)"', svg)) == arrows, "draw it again: python docs/draw_floors.py"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_local_links_of_a_page_exist(page: str) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text_of(page)):
        assert ((ROOT / page).parent / target).exists(), target
