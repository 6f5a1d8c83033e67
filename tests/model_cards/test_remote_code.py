"""The code that travels with a pretraining checkpoint: flat files that need nothing else, and that all arrive."""

import ast
import re
import sys
from pathlib import Path

import pytest

import modeling_ladder
from ladder_model_cards.remote_code import AUTO_MAP, remote_code_files

FOLDER = Path(modeling_ladder.__file__).parent
FILES = sorted(path.name for path in FOLDER.glob("*.py"))
# huggingface_hub and numpy come with transformers.
ALLOWED = {"torch", "transformers", "huggingface_hub", "numpy", *sys.stdlib_module_names}


def imports(content: str) -> tuple[list[ast.ImportFrom], set[str]]:
    """The relative imports of a module, and the top-level names of the others."""
    relative, absolute = [], set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.ImportFrom) and node.level:
            relative.append(node)
        elif isinstance(node, ast.ImportFrom):
            absolute.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            absolute |= {alias.name.split(".")[0] for alias in node.names}
    return relative, absolute


def test_the_package_is_flat() -> None:
    inner = [path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert inner == [], "the Hub's loader of remote code takes no folders"
    assert {"modeling_ladder.py", "modeling_ladder_pretraining.py", "configuration_ladder.py"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_modules_import_only_siblings_torch_and_transformers(name: str) -> None:
    relative, absolute = imports((FOLDER / name).read_text(encoding="utf-8"))
    assert absolute <= ALLOWED, "a user of the remote code has torch and transformers, and no package of ours"
    for node in relative:
        assert node.level == 1 and node.module and "." not in node.module, f"line {node.lineno}: from .sibling import"
        assert f"{node.module}.py" in FILES
        assert all(alias.name != "*" for alias in node.names)


def test_every_module_that_the_classes_need_is_sent() -> None:
    sent = remote_code_files()
    assert "__init__.py" not in sent
    for name, content in sent.items():
        assert content == (FOLDER / name).read_bytes()
        # transformers finds the files to fetch with this expression; it must see what Python sees.
        seen = set(re.findall(r"^\s*from\s+\.(\S+)\s+import", content.decode(), flags=re.MULTILINE))
        assert seen == {node.module for node in imports(content.decode())[0]}
        assert {f"{module}.py" for module in seen} <= set(sent)
    for entry in AUTO_MAP.values():
        module, _, cls = entry.partition(".")
        assert re.search(rf"^class {cls}\b", sent[f"{module}.py"].decode(), flags=re.MULTILINE)
