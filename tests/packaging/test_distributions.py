"""`make dist`: the wheel and the source distribution hold what a user needs, and the installed wheel works."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built from a copy of the files that git knows."""
    copy, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def clean_python(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel in it, which finds the dependencies of this one.

    This package itself is installed here by an editable install, which works by an import hook of this environment's
    .pth file; the fresh one reads no .pth files of others, so it can only find the wheel's files.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (wheel,) = distributions.glob("*.whl")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return python


def run(python: Path, *words: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(python), *words], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_all_packages_with_their_files(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"modeling_ladder": "modeling_ladder", "training": "ladder_training", "model_cards": "ladder_model_cards"}
    for folder, package in folders.items():
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        wanted = {f"{package}/{path.as_posix()}" for path in files if path.suffix != ".pyc"}
        assert wanted - names == set()
        assert f"{package}/py.typed" in names
    assert any(name.endswith("/doc/ladder-siamese/CITATION.cff") for name in names)
    assert any(name.endswith("/examples/finetune_classification.py") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {*folders.values(), "ladder_siamese"}


def test_the_wheel_tells_what_it_needs_and_where_to_read_more(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        text = file.read(name).decode()
    assert "Requires-Python: >=3.11" in text
    assert "Requires-Dist: scipy" in text
    assert "Project-URL: Paper, https://arxiv.org/abs/2211.13844" in text
    assert "# Ladder Siamese" in text


def test_the_source_distribution_holds_every_file_of_the_repository(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = {name for name in listed.splitlines() if (ROOT / name).is_file() and not name.endswith(".gitignore")}
    assert wanted - names == set()


def test_the_installed_wheel_runs(clean_python: Path, tmp_path: Path) -> None:
    code = """
import json, ladder_model_cards, ladder_training, modeling_ladder
from ladder_model_cards.card import TEMPLATES
from ladder_training.config.recipe import packaged_recipes, read_recipe
print(json.dumps({
    "files": [module.__file__ for module in (ladder_model_cards, ladder_training, modeling_ladder)],
    "recipes": packaged_recipes(),
    "digits": read_recipe("digits").values["dataset"],
    "card": (TEMPLATES / "card.md").read_text(),
    "trainer": ladder_training.LadderTrainer.__name__,
}))
"""
    import json

    said = json.loads(run(clean_python, "-c", code, folder=tmp_path).splitlines()[-1])
    environment = str(clean_python.parents[1])
    assert all(file.startswith(environment) for file in said["files"]), said["files"]
    assert {"digits", "small"} <= set(said["recipes"])
    assert said["digits"] == "digits"
    assert "$metadata" in said["card"]
    assert said["trainer"] == "LadderTrainer"


def test_the_installed_command_runs(clean_python: Path, tmp_path: Path) -> None:
    command = clean_python.parent / "ladder"
    assert command.is_file()
    assert "pretrain" in run(clean_python, str(command), "--help", folder=tmp_path)
    assert "ladder-siamese" in run(clean_python, str(command), "--version", folder=tmp_path)
