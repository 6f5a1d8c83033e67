"""Every package that the code imports is declared in setup.py, and nothing is declared that no code imports."""

import ast
import re
import sys
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
OWN = {"modeling_ladder", "ladder_training", "ladder_model_cards"}
DISTRIBUTION = {  # of imports whose distribution has another name
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "markdown_it": "markdown-it-py",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
EXTRA_OF_FOLDER = {"benchmarks": "benchmarks", "docs": "docs", "examples": None, "tests": "dev"}
# Tools that are run and not imported, and packages that are imported by their name as a string.
NOT_IMPORTED = {"build", "ipykernel", "mkdocs-material", "mkdocstrings", "mypy", "pytest-xdist", "ruff"}
NOT_IMPORTED |= {"types-pyyaml", "types-tqdm"}


@pytest.fixture(scope="module")
def declared() -> dict[str, object]:
    """The arguments of `setup()`."""
    caught: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: caught.update(options))
        patch.chdir(ROOT)
        source = compile((ROOT / "setup.py").read_text(encoding="utf-8"), "setup.py", "exec")
        exec(source, {"__name__": "__main__", "__file__": str(ROOT / "setup.py")})
    return caught


def normal(requirement: str) -> str:
    """The normal form of a distribution's name, without its version."""
    return re.split(r"[\s<>=!~\[;]", requirement)[0].lower().replace("_", "-")


def imported(folder: str) -> dict[str, str]:
    """Distribution to one of the files of a folder that import it."""
    own = OWN | {path.stem for path in (ROOT / folder).rglob("*.py")} | {p.name for p in (ROOT / folder).rglob("*/")}
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in (name.split(".")[0] for name in names):
                outside = name not in sys.stdlib_module_names and name not in OWN
                if outside and (folder in ("modeling_ladder", "model_cards", "training") or name not in own):
                    found.setdefault(normal(DISTRIBUTION.get(name, name)), str(path.relative_to(ROOT)))
    return found


def names_of(requirements: object) -> set[str]:
    assert isinstance(requirements, list)
    return {normal(requirement) for requirement in requirements}


@pytest.mark.parametrize("folder", ["modeling_ladder", "model_cards", "training"])
def test_what_a_package_imports_is_installed_with_it(declared: dict, folder: str) -> None:
    # Exporting to ONNX and timm, and the page of `ladder explore`, are extras.
    extras = (names_of(declared["extras_require"][extra]) for extra in ("onnx", "timm", "explore"))
    known = names_of(declared["install_requires"]).union(*extras)
    missing = {name: file for name, file in imported(folder).items() if name not in known}
    assert not missing, missing


@pytest.mark.parametrize("folder", EXTRA_OF_FOLDER)
def test_what_other_folders_import_is_installed_or_in_their_extra(declared: dict, folder: str) -> None:
    extra = EXTRA_OF_FOLDER[folder]
    known = names_of(declared["install_requires"]) | (names_of(declared["extras_require"][extra]) if extra else set())
    missing = {name: file for name, file in imported(folder).items() if name not in known}
    assert not missing, missing


def test_nothing_is_declared_that_no_code_imports(declared: dict) -> None:
    used = {name for folder in ("modeling_ladder", "model_cards", "training") for name in imported(folder)}
    assert names_of(declared["install_requires"]) - used == set()
    everywhere = used.union(*(imported(folder) for folder in EXTRA_OF_FOLDER))
    extras = set().union(*(names_of(extra) for extra in declared["extras_require"].values()))
    assert extras - everywhere == NOT_IMPORTED


def test_the_oldest_versions_are_those_of_the_design(declared: dict) -> None:
    assert declared["python_requires"] == ">=3.11"
    assert {"torch>=2.6", "transformers>=5.23,<6", "accelerate>=1.3"} <= set(declared["install_requires"])


def test_all_three_packages_are_typed(declared: dict) -> None:
    for name, folder in declared["package_dir"].items():
        assert (ROOT / folder / "py.typed").is_file()
        assert "py.typed" in declared["package_data"][name]
