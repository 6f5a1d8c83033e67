"""Every command that makes something ends by naming the command that comes next, and that command exists."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from helpers.models import tiny_native_backbone
from helpers.pictures import natural_image
from ladder_training.cli.commands import COMMANDS
from ladder_training.cli.entry import main
from ladder_training.models.processor import image_processor

ROOT = Path(__file__).parents[2] / "training"
# Files that print the last words of the commands. `ladder explore` ends when its page is closed.
LAST_WORDS = {
    "pretrain": "pretraining/run.py",
    "evaluate": "cli/evaluate.py",
    "finetune": "cli/finetune.py",
    "embed": "cli/embed.py",
    "compare": "compare/command.py",
    "export": "cli/export.py",
    "import": "cli/import_weights.py",
    "card": "cli/publish.py",
    "report": "cli/publish.py",
    "push": "cli/publish.py",
    "inspect": "cli/inspect_data.py",
    "prepare": "preparation/command.py",
    "demo": "cli/demo.py",
}


def test_every_command_is_listed() -> None:
    assert set(COMMANDS) - set(LAST_WORDS) == {"explore"}


@pytest.mark.parametrize("name", LAST_WORDS)
def test_the_command_named_next_exists(name: str) -> None:
    tree = ast.parse((ROOT / LAST_WORDS[name]).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    first = [
        call.args[0].values[0] if isinstance(call.args[0], ast.JoinedStr) else call.args[0]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "ladder_command"
    ]
    named = [argument.value.split()[0] for argument in first]
    named += [name for text in texts for name in re.findall(r"next: ladder (\w+)", text)]
    assert any("next: " in text for text in texts)
    assert named and all(name in COMMANDS for name in named)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_command_named_after_pretraining_works(labelled: bool, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        path = Path("my photos", *([f"class{number % 2}"] if labelled else []), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(natural_image(40, 40, seed=number)).save(path)
    words = "--output run --backbone resnet-tiny --image_size 32 --batch_size 8 --workers 0 --monitor_steps 0"
    assert main(["pretrain", "--dataset", "my photos", *words.split(), "--epochs", "1", "--use_cpu", "true"]) == 0
    said = capsys.readouterr().out
    assert "steps      5 (40 images, 1 passes)" in said and "step 5/5" in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("next: ladder evaluate knn" if labelled else "next: ladder embed")
    assert main(shlex.split(last.removeprefix("next: ladder ").partition("  (")[0])) == 0


def test_a_plan_of_passes_counts_whole_batches_as_training_does(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(44):
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(natural_image(40, 40, seed=number)).save(f"photos/{number}.png")
    words = "--output run --backbone resnet-tiny --image_size 32 --batch_size 8 --workers 0 --use_cpu true --epochs 2"
    assert main(["pretrain", "--data", "photos", *words.split()]) == 0
    said = capsys.readouterr().out
    assert "steps      10 (80 images" in said and "step 10/10" in said


@pytest.mark.parametrize(("split", "steps"), [(None, 39), ("test", 38)])
def test_a_plan_of_passes_leaves_out_what_is_held_out(split, steps, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(160):
        folder = Path("photos", *([split if number < 8 else "train"] if split else []))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(natural_image(12, 12, seed=number)).save(folder / f"{number}.png")
    words = "--output run --backbone resnet-tiny --image_size 32 --batch_size 4 --workers 0 --epochs 1 --dry_run"
    assert main(["pretrain", "--data", "photos", *words.split()]) == 0
    assert f"steps      {steps} (" in capsys.readouterr().out


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with a model, a folder of two classes and a Parquet file, whose names hold spaces and a $."""
    monkeypatch.chdir(tmp_path)
    tiny_native_backbone(seed=1).save_pretrained("my model")
    image_processor(32).save_pretrained("my model")
    rows = []
    for number in range(40):
        path = Path("my $photos", f"class {number % 2}", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(natural_image(40, 40, seed=number)).save(path)
        picture = {"bytes": path.read_bytes(), "path": None}
        rows.append({"thumb": {"bytes": b"", "path": None}, "picture": picture, "kind": f"class {number % 2}"})
    features = datasets.Features(
        {"thumb": datasets.Image(), "picture": datasets.Image(), "kind": datasets.Value("string")}
    )
    Path("my table").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet("my table/train.parquet")
    return tmp_path


COLUMNS = ["--image_column", "picture", "--label_column", "kind"]
SHORT = (
    "--backbone resnet-tiny --image_size 32 --batch_size 8 --workers 0 --monitor_steps 0 --max_steps 1 --use_cpu true"
)


def next_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The words after `ladder` of the command that a command names next."""
    assert main(words) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("next: ladder ")
    return shlex.split(last.removeprefix("next: ladder ").partition("  (")[0])


def test_the_command_after_pretraining_knows_the_columns(place, capsys) -> None:
    words = ["pretrain", "--dataset", "my table", "--output", "my run", *COLUMNS, *SHORT.split()]
    following = next_words(words, capsys)
    assert following[:2] == ["evaluate", "knn"] and main(following) == 0


def test_labels_that_are_not_there_are_not_asked_for_next(place, capsys) -> None:
    words = ["pretrain", "--dataset", "my $photos/class 0", "--label_column", "sort", *SHORT.split()]
    following = next_words([*words, "--output", "my run"], capsys)
    assert following[0] == "embed" and main(following) == 0


def test_the_command_after_evaluating_knows_the_data_and_fits_every_backbone(place, capsys) -> None:
    words = ["evaluate", "knn", "--model", "my model", "--dataset", "my table", "--no-untrained", *COLUMNS]
    following = next_words(words, capsys)
    assert following[:2] == ["finetune", "classification"]
    short = ["--max_steps", "1", "--min_steps", "1"]
    following = next_words([*following, *short], capsys)
    assert following[:2] == ["evaluate", "linear"] and main([*following, "--epochs", "1"]) == 0


def test_the_command_after_embedding_knows_the_columns(place, capsys) -> None:
    words = ["embed", "--model", "my model", "--dataset", "my table", "--output", "all.parquet", *COLUMNS]
    expected = ["explore", "--model", "my model", "--dataset", "my table"]
    assert next_words(words, capsys) == [*expected, *COLUMNS]


def test_the_command_after_inspecting_knows_the_columns(place, capsys) -> None:
    words = ["inspect", "--dataset", "my table", *COLUMNS[:2], "--image_size", "32", "--output", "look"]
    following = next_words([*words, "--image_range", "0", "4095"], capsys)
    assert following[:3] == ["pretrain", "--dataset", "my table"]
    assert main([*following, *SHORT.split(), "--output", "my run"]) == 0
    said = json.loads(Path("my run/run.json").read_text())["recipe"]["values"]
    assert said["image_column"] == "picture" and said["image_range"] == [0, 4095]


def test_the_command_after_preparing_names_the_split_where_it_is_not_train(place, capsys) -> None:
    for split in ("test", "validation"):
        Path("split photos", split).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(natural_image(40, 40, seed=number)).save(Path("split photos", split, f"{number}.png"))
    words = ["prepare", "--dataset", "split photos", "--output", "my shards", "--split", "validation", "test"]
    following = next_words(words, capsys)
    assert main([*following, *SHORT.split(), "--output", "my run"]) == 0


def test_the_command_after_a_report_is_for_what_the_folder_holds(place, capsys) -> None:
    assert next_words(["report", "my model"], capsys)[:3] == ["push", "my model", "USER/NAME"]
    run = Path("my comparison/runs/ladder/seed-0")
    shutil.copytree("my model", run)
    shutil.copy(ROOT.parent / "docs" / "study" / "imagenette96" / "comparison.json", "my comparison")
    assert next_words(["report", "my comparison"], capsys)[1] == str(run)
    shutil.rmtree("my comparison/runs")
    assert next_words(["report", "my comparison"], capsys) == ["report", "my comparison"]


def test_exporting_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    tiny_native_backbone(seed=1).save_pretrained(model)
    assert main(["export", str(model), "--format", "transformers", "--output", str(tmp_path / "out")]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"next: ladder finetune classification --model {model} --dataset LABELLED_DATASET --output DIR"
