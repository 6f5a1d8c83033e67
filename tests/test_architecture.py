"""The rules of the house: arrows point down, no circle of files, small files, small rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGES = {"modeling_ladder": "modeling_ladder", "ladder_model_cards": "model_cards", "ladder_training": "training"}
PACKAGE_FLOORS = ("modeling_ladder", "ladder_model_cards", "ladder_training")
FLOORS = (  # of `training/`, from the ground up; a room imports only rooms of lower floors
    {"errors", "files"},
    {"images", "config", "data", "runs"},
    {"views", "loading", "models"},
    {"trainer", "evaluation", "inspection", "export", "preparation"},
    {"pretraining", "finetuning", "exploration"},
    {"compare"},
    {"cli"},
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
LOOSE = {"__init__", "__main__", "errors", "files"}
MOST_LINES, MOST_MODULES = 400, 18


def module_name(path: Path, root: Path) -> str:
    """training/config/options.py -> ladder_training.config.options; a package is named by its folder."""
    folder, *parts = path.relative_to(root).with_suffix("").parts
    package = next(name for name, mapped in PACKAGES.items() if mapped == folder)
    return ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the three packages, by its import name."""
    paths = (path for folder in PACKAGES.values() for path in sorted((root / folder).rglob("*.py")))
    return {module_name(path, root): path for path in paths}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether the import is relative) of every import of our own, also inside functions and for types.

    `from .room import module` counts as an import of the module; of anything else, of the room itself.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name, False) for alias in node.names if alias.name.split(".")[0] in PACKAGES
            )
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            if target.split(".")[0] not in PACKAGES:
                continue
            for alias in node.names:
                inner = f"{target}.{alias.name}"
                yield node.lineno, inner if inner in known else target, bool(node.level)


def problems(root: Path) -> list[str]:
    """Every broken rule of a tree, in one line each."""
    modules = modules_of(root)
    known, arrows, found = set(modules), {}, []
    for name, path in modules.items():
        where, package = path.relative_to(root), name.split(".")[0]
        arrows[name] = set()
        for line, target, relative in imports_of(name, path, known):
            other = target.split(".")[0]
            if other == package and not relative and path.name != "__main__.py":
                found.append(f"{where}:{line}: import relatively inside a package")
            if PACKAGE_FLOORS.index(other) > PACKAGE_FLOORS.index(package):
                found.append(f"{where}:{line}: {package} imports {other}")
            if package == other == "ladder_training":
                found += _upward(name, target, f"{where}:{line}", known)
            if target in known and target != name:
                arrows[name].add(target)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(f"{where}: {lines} lines, at most {MOST_LINES}")
    found += [f"a circle of imports: {' -> '.join(circle)}" for circle in _circles(arrows)]
    for folder in sorted({path.parent for path in modules.values()}):
        count = len({path.stem for path in folder.glob("*.py")} - {"__init__"})
        if count > MOST_MODULES:
            found.append(f"{folder.relative_to(root)}: {count} modules, at most {MOST_MODULES}")
    loose = {path.stem for path in (root / "training").glob("*.py")} - LOOSE
    found += [f"training/{stem}.py: a loose module; every module has a room" for stem in sorted(loose)]
    rooms = {path.name for path in (root / "training").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    found += [f"training/{room}: a room that is on no floor" for room in sorted(rooms - set(FLOOR))]
    return found


def _upward(name: str, target: str, where: str, known: set[str]) -> list[str]:
    """What is wrong with an import between two rooms of `training/`, or between two tasks of `evaluation/`."""
    source, other = name.split(".")[1:], target.split(".")[1:]
    if not source or source[0] not in FLOOR or not other or other[0] not in FLOOR:
        return []
    if source[0] != other[0]:
        upward = FLOOR[other[0]] >= FLOOR[source[0]]
        return [f"{where}: {source[0]} imports {other[0]}, which is not on a lower floor"] if upward else []
    deep = [module.split(".") for module in known if module.count(".") > 2]
    inner = {parts[2] for parts in deep if parts[:2] == ["ladder_training", source[0]]}
    both = [part[1] for part in (source, other) if len(part) > 1 and part[1] in inner]
    if len(both) == 2 and both[0] != both[1]:
        return [f"{where}: {source[0]}/{both[0]} imports its neighbour {both[1]}"]
    return []


def _circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """One circle for each module that can reach itself, each circle once.

    A package's own `__init__` gives names lazily and is no step of a circle, but those of the rooms import nothing.
    """
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            circle = trail[trail.index(name) :]
            if not any(set(circle) == set(other) for other in found):
                found.append(circle)
            return
        if name in done:
            return
        for target in sorted(arrows[name]):
            visit(target, [*trail, name])
        done.add(name)

    for name in sorted(arrows):
        visit(name, [])
    return found


def test_this_tree_keeps_the_rules() -> None:
    assert not (found := problems(ROOT)), "\n".join(found)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house that keeps the rules."""
    for folder in PACKAGES.values():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text('"""Names."""\n')
    for room in ("config", "data", "evaluation", "evaluation/one", "evaluation/two"):
        (tmp_path / "training" / room).mkdir()
        (tmp_path / "training" / room / "__init__.py").write_text('"""One line."""\n')
    (tmp_path / "training" / "config" / "options.py").write_text("from ..errors import UserError\n")
    for task in ("one", "two"):
        (tmp_path / "training" / "evaluation" / task / "task.py").write_text("from ...errors import UserError\n")
    (tmp_path / "training" / "errors.py").write_text("class UserError(ValueError): ...\n")
    assert problems(tmp_path) == []
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("training/config/new.py", "def later():\n    from ..data import columns\n", "config imports data"),
        ("training/errors.py", "from .config import options\n", "errors imports config"),
        ("training/config/new.py", "from ladder_training.errors import UserError\n", "import relatively"),
        ("training/config/new.py", "import ladder_training.errors\n", "import relatively"),
        ("training/evaluation/one/new.py", "from ..two import other\n", "imports its neighbour two"),
        ("training/new.py", "", "a loose module"),
        ("training/attic/__init__.py", "", "on no floor"),
        ("training/config/long.py", "a = 1\n" * 401, "401 lines"),
        ("modeling_ladder/new.py", "from ladder_training import errors\n", "modeling_ladder imports ladder_training"),
        ("model_cards/new.py", "if True:\n    import ladder_training\n", "ladder_model_cards imports ladder_training"),
    ],
)
def test_a_planted_fault_is_found(house: Path, file: str, text: str, said: str) -> None:
    (house / file).parent.mkdir(exist_ok=True)
    (house / file).write_text(text)
    assert any(said in line for line in problems(house)), problems(house)


def test_a_circle_inside_a_room_is_found(house: Path) -> None:
    config = house / "training" / "config"
    (config / "a.py").write_text("from .b import x\n")
    (config / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import x\n")
    (config / "c.py").write_text("def f():\n    from . import a\n")
    assert [line for line in problems(house) if "circle" in line] == [
        "a circle of imports: ladder_training.config.a -> ladder_training.config.b -> ladder_training.config.c"
    ]


def test_a_crowded_room_is_found(house: Path) -> None:
    for number in range(MOST_MODULES):
        (house / "training" / "config" / f"m{number}.py").write_text("")
    assert any("training/config: 19 modules" in line for line in problems(house))
