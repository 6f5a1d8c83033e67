"""A licence goes with the weights: into the run that starts from them, what is fine-tuned from it, and the cards."""

import json
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from helpers.models import tiny_native_backbone
from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.models import provenance
from ladder_training.models.processor import image_processor
from ladder_training.models.provenance import licence_line, provenance_of

NC = "cc-by-nc-4.0"
IMPORTED = {"kind": "DeepMind names", "file": "byol.npz", "sha256": "ab" * 32, "padding": "same", "notes": []}
ONE_STEP = (
    "--max_steps 1 --per_device_train_batch_size 4 --projection_hidden_size 16 --projection_size 8 --warmup_steps 0 "
    "--dataloader_num_workers 0 --use_cpu true --report_to none --monitor_steps 0 --disable_tqdm true --image_size 32"
)
OWN_NETWORK = ["--backbone_config", "null"]


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
    assert record["started_from"] == {"model": str(imported), "license": NC, "imported": IMPORTED}
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
