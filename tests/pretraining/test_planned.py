"""`ladder pretrain --dataset D`: a plan is printed, written, trained, and continued by the same command."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.models import TINY_YAML
from ladder_training.cli.entry import main
from ladder_training.config.recipe import read_recipe
from ladder_training.pretraining import planned as planned_module
from ladder_training.pretraining.build import training_arguments
from ladder_training.pretraining.facts import measure_images, measure_machine
from ladder_training.pretraining.planned import default_folder, planned_run
from ladder_training.pretraining.run import _build
from ladder_training.runs.record import RunRecord

WORDS = ["pretrain", "--dataset", "digits", "--batch_size", "16", "--monitor_steps", "0", "--disable_tqdm"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_is_printed_written_trained_and_continued(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*WORDS, "--steps", "3", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "1,428 in digits" in said and "backbone: resnet-tiny" in said and "max_steps: 3" in said
    assert list(here.iterdir()) == []

    assert main([*WORDS, "--steps", "3"]) == 0
    said = capsys.readouterr().out
    rows = "view size  32 pixels|batch      16|steps      3 (48 images|rate       adamw 0.002|time       about"
    assert all(row in said for row in rows.split("|"))
    folder = here / "runs" / "digits"
    recipe = read_recipe(folder / "recipe.yaml")
    assert recipe.values["max_steps"] == 3 and recipe.values["backbone"] == "resnet-tiny"
    assert recipe.values["output"] == "runs/digits"
    record = RunRecord.read(folder)
    assert record is not None and record.steps == 3 and record.recipe.name == "plan"

    # The same command, or less of it, finds the same plan; without recipe.yaml too.
    for lost in (False, True):
        if lost:
            (folder / "recipe.yaml").unlink()
        for words in ([*WORDS, "--steps", "3"], ["pretrain", "--data", "digits"]):
            assert main(words) == 0
            said = capsys.readouterr().out
            assert "holds a plan already" in said and "is finished: 3 steps" in said
    assert main([*WORDS, "--steps", "4"]) == 2
    assert "max_steps was 3, is 4" in capsys.readouterr().err


def test_without_images_there_is_nothing_to_plan(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["pretrain"]) == 2
    assert "give --dataset FOLDER" in capsys.readouterr().err
    assert main(["pretrain", "--dataset", "./nowhere"]) == 2
    assert "./nowhere" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_one_image_is_too_few_and_a_smaller_batch_is_no_remedy(here: Path, capsys: pytest.CaptureFixture) -> None:
    """Batch norm needs two."""
    write_images("one", 1)
    assert main(["pretrain", "--dataset", "one", "--steps", "2", "--use_cpu"]) == 2
    said = capsys.readouterr()
    assert "one: 1 image is too few to train on" in said.err and "view size" not in said.out
    assert main(["pretrain", "digits", "--dataset", "one", "--output", "run", "--batch_size", "2", "--use_cpu"]) == 2
    assert "one: 1 images are fewer than one optimizer step uses" in (error := capsys.readouterr().err)
    assert error.rstrip().endswith("; add images")
    assert [path.name for path in here.iterdir()] == ["one"]


def test_an_own_network_is_measured(here: Path) -> None:
    words = {"dataset": ["digits"], "backbone_config": [TINY_YAML], "max_steps": ["5"]}
    planned = planned_run(words)
    assert planned.recipe.model.backbone is None
    assert (planned.recipe.model.backbone_config or {})["hidden_sizes"] == [8, 12, 16, 20]
    assert "resnet  " in planned.text and "as you said" in planned.text


def test_a_backbone_named_by_the_folder_of_a_model(here: Path) -> None:
    """Its architecture, not its weights."""
    from transformers import ConvNextConfig

    from ladder_training.pretraining.build import build_model

    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_labels=7)
    config.save_pretrained("net")
    planned = planned_run({"dataset": ["digits"], "backbone": ["./net"], "image_size": ["64"], "max_steps": ["5"]})
    model = build_model(planned.recipe)
    assert model.config.backbone_config.model_type == "convnext"
    assert model.config.backbone_config.hidden_sizes == [8, 8, 16, 16]


def test_the_facts() -> None:
    facts = measure_images(["digits"], split="train")
    assert (facts.name, facts.count, facts.side, facts.streaming) == ("digits", 1428, 32, False)
    assert 100 < facts.file_bytes < 5000
    machine = measure_machine()
    assert machine.cores >= 1 and machine.memory > 2**30


def test_the_folder_is_named_by_the_images() -> None:
    assert default_folder(["photos/"]) == "runs/photos"
    assert default_folder(["user/pets:small", "b c"]) == "runs/pets-small-b-c"


def write_images(folder: str, count: int) -> None:
    Path(folder).mkdir(parents=True)
    rng = np.random.default_rng(len(folder))
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(f"{folder}/{number:03d}.png")


@pytest.mark.parametrize(
    ("folders", "words", "steps"),
    [
        ({"photos": 200}, {}, 48),  # two are held out: 198 // 8 batches a pass, where 200 would be 25
        ({"photos": 200}, {"monitor_steps": ["0"]}, 50),
        ({"photos": 200}, {"monitor_steps": ["0"], "eval_strategy": ["epoch"]}, 48),
        ({"photos/train": 200, "photos/validation": 10}, {}, 50),
        ({"photos": 200, "other": 20}, {"eval_dataset": ["other"]}, 50),
        ({"photos": 152, "more": 152}, {"dataset": ["photos", "more"]}, 74),  # two of each are held out
        ({"photos": 152, "more": 152}, {"dataset": ["photos", "more"], "streaming": ["true"]}, 74),
        ({"photos": 200}, {"gradient_accumulation_steps": ["5"]}, 8),
        # The last step of a stream takes what is left of its passes.
        ({"photos": 200}, {"gradient_accumulation_steps": ["5"], "streaming": ["true"]}, 10),
    ],
)
def test_a_plan_of_passes_has_the_steps_that_are_trained(
    folders: dict, words: dict, steps: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in folders.items():
        write_images(name, count)
    agree_on_steps({"dataset": ["photos"], "num_train_epochs": ["2"], **words}, steps, monkeypatch)


def test_of_copies_in_a_stream_only_one_is_held_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two different images would be: 200 are left, which are whole batches."""
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    write_images("photos", 1)
    [file] = Path("photos").iterdir()
    rows = [{"bytes": file.read_bytes(), "path": None}] * 201
    Dataset.from_dict({"image": rows}, features=Features({"image": ImageColumn()})).to_parquet("copies.parquet")
    words = {"dataset": ["copies.parquet"], "streaming": ["true"], "num_train_epochs": ["1"]}
    agree_on_steps(words, 25, monkeypatch)


def agree_on_steps(words: dict[str, list[str]], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned_module, "_speed", lambda recipe, plan: None)
    small = {"image_size": ["32"], "per_device_train_batch_size": ["8"], "use_cpu": ["true"], "report_to": ["none"]}
    planned = planned_run({**small, **words})
    folder = Path("run")
    _, trainer = _build(planned.recipe, folder, training_arguments(planned.recipe, folder), None)
    assert trainer._total_steps(trainer.get_train_dataloader()) == steps
    assert f"  steps      {steps} ({steps * trainer.args.global_batch_size:,} images" in planned.text
