"""A licence goes with the weights: into the run that starts from them, what is fine-tuned from it, and the cards."""

import json
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from helpers.models import tiny_native_backbone
from ladder_training import LadderTrainer, LadderTrainingArguments, TwoViewTransform, load_image_stream
from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.evaluation.backbone import default_output
from ladder_training.models import provenance
from ladder_training.models.processor import image_processor
from ladder_training.models.provenance import licence_line, provenance_of
from ladder_training.models.weight_files import hash_of_weights
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

NC = "cc-by-nc-4.0"
IMPORTED = {"kind": "DeepMind names", "file": "byol.npz", "sha256": "ab" * 32, "padding": "same", "notes": []}
ONE_STEP = (
    "--max_steps 1 --per_device_train_batch_size 4 --projection_hidden_size 16 --projection_size 8 --warmup_steps 0 "
    "--dataloader_num_workers 0 --use_cpu true --report_to none --monitor_steps 0 --disable_tqdm true --image_size 32"
)
OWN_NETWORK = ["--backbone_config", "null"]
PYTHON = {"warmup_steps": 0, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "eval_strategy": "no"}


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A backbone as `ladder import` writes DeepMind's."""
    folder = tmp_path / "imported"
    tiny_native_backbone(seed=1, out_features=["stage1", "stage2", "stage3", "stage4"]).save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    record = {"version": 1, "status": "imported", "license": NC, "recipe": {}, "imported": IMPORTED}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def continued(source: Path, folder: Path, *words: str) -> dict:
    given = ["pretrain", "digits", "--from", str(source), "--output", str(folder), *ONE_STEP.split(), *OWN_NETWORK]
    assert main([*given, *words]) == 0
    return json.loads((folder / "run.json").read_text())


def test_a_run_and_its_card_have_the_licence_of_the_weights_it_starts_from(imported, tmp_path, capsys):
    record = continued(imported, tmp_path / "run")
    assert record["license"] == NC
    weights = hash_of_weights(str(imported))
    assert record["started_from"] == {"model": str(imported), "license": NC, "imported": IMPORTED, "weights": weights}
    assert record["imported"] is None  # these weights were trained here
    assert f"licence: {NC}, that of the weights of {imported}" in capsys.readouterr().out
    card = tmp_path / "run" / "README.md"
    assert metadata_load(card)["license"] == NC
    assert (
        "byol.npz" in card.read_text() and "ab" * 32 in card.read_text() and "## How it was trained" in card.read_text()
    )

    # Two runs later it is the same file still, and a checkpoint's folder is the run's.
    again = continued(tmp_path / "run" / "pretraining", tmp_path / "again")
    assert again["license"] == NC and again["started_from"]["imported"] == IMPORTED
    assert main(["push", str(tmp_path / "again"), "user/name", "--dry_run"]) == 0
    assert metadata_load(tmp_path / "again" / "README.md")["license"] == NC


def test_another_licence_that_is_asked_for_does_not_hide_that_of_the_source(imported, tmp_path, capsys):
    record = continued(imported, tmp_path / "run", "--license", "apache-2.0")
    assert record["license"] == "apache-2.0" and record["started_from"]["license"] == NC
    assert f"licence: apache-2.0, as you say; the weights of {imported} are under {NC}" in capsys.readouterr().out
    card = tmp_path / "run" / "README.md"
    assert metadata_load(card)["license"] == "apache-2.0" and NC in card.read_text()


def test_a_fine_tuned_folder_and_its_card_have_it_too(imported, tmp_path, capsys):
    settings = "--min_steps 1 --epochs 1 --batch_size 64 --learning_rates 0.001 --device cpu"
    out = tmp_path / "out"
    words = ["--model", str(imported), "--dataset", "digits", "--output", str(out)]
    assert main(["finetune", "classification", *words, *settings.split()]) == 0
    said = json.loads((out / "finetuned.json").read_text())
    assert said["license"] == NC and said["started_from"]["imported"] == IMPORTED
    assert f"licence: {NC}, that of the weights of" in capsys.readouterr().err
    assert main(["card", str(out)]) == 0
    assert metadata_load(out / "README.md")["license"] == NC and "byol.npz" in (out / "README.md").read_text()
    assert provenance_of(str(out))["license"] == NC


@pytest.mark.parametrize("format", ["transformers", "detectron2"])
def test_an_exported_folder_has_it_and_hands_it_on(imported, tmp_path, capsys, format):
    out = tmp_path / "out"
    for _ in range(2):  # also into a folder that holds an export already
        assert main(["export", str(imported), "--format", format, "--output", str(out)]) == 0
    assert f"licence: {NC}, that of the weights of {imported}" in capsys.readouterr().err
    said = json.loads((out / "exported.json").read_text())
    assert said["format"] == format and said["license"] == NC
    assert said["started_from"] == {"model": str(imported), "license": NC, "imported": IMPORTED}
    assert metadata_load(out / "README.md")["license"] == NC  # what the Hub shows of a folder that is put there by hand
    assert "byol.npz" in (out / "README.md").read_text() and "ab" * 32 in (out / "README.md").read_text()
    if format == "transformers":
        assert provenance_of(str(out)) == {"model": str(out), "license": NC, "imported": IMPORTED}
        assert continued(out, tmp_path / "run")["license"] == NC
        assert main(["card", str(out)]) == 0
        card = (out / "README.md").read_text()
        assert metadata_load(out / "README.md")["license"] == NC and "byol.npz" in card


def test_an_export_of_a_run_says_what_its_card_says_and_where_nothing_is_known_nothing(imported, tmp_path, capsys):
    continued(imported, tmp_path / "run", "--license", "apache-2.0")
    assert main(["export", str(tmp_path / "run"), "--format", "transformers", "--output", str(tmp_path / "out")]) == 0
    said = json.loads((tmp_path / "out" / "exported.json").read_text())
    assert said["license"] == "apache-2.0" and said["started_from"]["imported"] == IMPORTED
    (imported / "run.json").unlink()
    capsys.readouterr()
    assert main(["export", str(imported), "--format", "transformers", "--output", str(tmp_path / "bare")]) == 0
    assert json.loads((tmp_path / "bare" / "exported.json").read_text())["license"] == "other"
    assert "licence" not in capsys.readouterr().err


def trained(model, folder: Path, **options) -> dict:
    """The record of a run that is started from Python."""
    arguments = LadderTrainingArguments(str(folder), max_steps=1, per_device_train_batch_size=4, **PYTHON)
    views = TwoViewTransform(size=32)
    trainer = LadderTrainer(model, arguments, load_image_stream("digits", split="train"), transform=views)
    trainer.train()
    if options:
        trainer.create_model_card(**options)
    else:
        trainer.save_model()
    return json.loads((folder / "run.json").read_text())


def test_a_run_from_python_has_the_licence_of_what_its_model_was_read_from(imported, tmp_path, capsys):
    heads = {"projection_hidden_size": 16, "projection_size": 8}
    model = LadderSiameseForPreTraining.from_pretrained(str(imported), **heads)
    record = trained(model, tmp_path / "run")
    assert record["license"] == NC and record["imported"] is None
    assert record["started_from"] == {"model": str(imported), "license": NC, "imported": IMPORTED}
    assert f"licence: {NC}, that of the weights of {imported}" in capsys.readouterr().err
    card = tmp_path / "run" / "README.md"
    assert metadata_load(card)["license"] == NC and "byol.npz" in card.read_text()

    # The same run goes on from its own folder; a later run starts from it; both name the file that was imported.
    model = LadderSiameseForPreTraining.from_pretrained(str(tmp_path / "run" / "pretraining"))
    assert trained(model, tmp_path / "again")["started_from"]["imported"] == IMPORTED
    model = LadderSiameseForPreTraining.from_pretrained(str(imported), **heads)
    asked = trained(model, tmp_path / "asked", license="apache-2.0")
    assert asked["license"] == "apache-2.0" and asked["started_from"]["license"] == NC

    # Trained into the folder of the imported file itself, whose record is replaced.
    model = LadderSiameseForPreTraining.from_pretrained(str(imported), **heads)
    there = trained(model, imported)
    assert there["license"] == NC and there["imported"] is None and there["started_from"]["imported"] == IMPORTED

    new = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=model.config.backbone_config, **heads))
    fresh = trained(new, tmp_path / "new")
    assert fresh["license"] is None and fresh["started_from"] is None


def test_a_new_network_has_no_such_licence(tmp_path):
    words = ["pretrain", "digits", "--output", str(tmp_path / "run"), *ONE_STEP.split(), "--backbone", "resnet18"]
    assert main(words) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["license"] == "other" and record["started_from"] is None


def test_a_card_tells_the_licence_of_a_folder_without_a_record(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert provenance_of(str(tmp_path)) == {"model": str(tmp_path), "license": None, "imported": None}
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert provenance_of(str(tmp_path))["license"] == "apache-2.0"


@pytest.mark.parametrize("inner", ["checkpoint-3", "pretraining"])
def test_a_checkpoint_is_part_of_its_run_however_it_is_named(inner, tmp_path, monkeypatch):
    folder = tmp_path / "run" / inner
    tiny_native_backbone().save_pretrained(folder)
    (tmp_path / "run" / "run.json").write_text('{"license": "cc-by-4.0"}')
    (tmp_path / "newest").symlink_to(folder)
    monkeypatch.chdir(folder)
    for reference in (".", str(folder), f"{folder}/", str(tmp_path / "newest")):
        assert provenance_of(reference)["license"] == "cc-by-4.0"
        assert default_output(reference).resolve() == tmp_path / "run"


@pytest.mark.parametrize("metadata", ["license: [1]", ": : :\n\t- x", "- a", "license:", ""])
def test_a_card_that_tells_nothing_is_no_error(metadata, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n" if metadata else "no card")
    assert provenance_of(str(tmp_path))["license"] is None


def test_a_hub_model_has_the_licence_of_its_card(tmp_path, monkeypatch):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    monkeypatch.setattr(provenance, "hub_file", lambda name, path, revision: card if revision == "v1" else None)
    assert provenance_of("user/name@v1") == {"model": "user/name@v1", "license": NC, "imported": None}
    assert provenance_of("user/name")["license"] is None

    def unreachable(*_):
        raise UserError("the Hub cannot be reached")

    monkeypatch.setattr(provenance, "hub_file", unreachable)
    assert provenance_of("user/name")["license"] is None


def test_whose_licence_counts():
    source = {"model": "m", "license": NC, "imported": None}
    assert licence_line(source, "other")[0] == licence_line(source, None)[0] == NC
    assert licence_line(source, NC) == (NC, None)
    assert licence_line({**source, "license": None}, "mit") == ("mit", None)
    assert licence_line({**source, "license": None}, None) == ("other", None)
