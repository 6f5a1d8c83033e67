"""Backbones that were trained elsewhere stand in the table beside the comparison's own, and are never touched."""

import hashlib
import json
from pathlib import Path

import pytest

from helpers.comparison import compare, summary_of
from ladder_training.compare.given_weights import given_fingerprint
from ladder_training.compare.plan import find_method, read_variants
from ladder_training.errors import UserError


def backbone(folder: Path, weights: bytes = b"weights", **said: object) -> Path:
    """A folder that looks like a backbone of somebody else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    if said:
        (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


@pytest.fixture
def variants(tmp_path: Path) -> str:
    path = tmp_path / "variants.yaml"
    path.write_text(f"simclr: {{weights: '{tmp_path}/given/simclr/seed-{{seed}}'}}\n", encoding="utf-8")
    return str(path)


def test_given_weights_are_scored_and_not_trained(
    recipe: str, tmp_path: Path, variants: str, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (7, 8):
        folder = backbone(tmp_path / "given/simclr" / f"seed-{seed}", steps=6, seconds=12.0 + seed, method="x")
        (folder / "checkpoint-3").mkdir()
    words = ("--variants", variants)
    assert compare(recipe, tmp_path / "table", *words, methods="byol simclr", seeds="7 8") == 0
    assert [call for call in calls if "simclr" in call] == [
        f"{task} simclr seed-{seed}" for seed in (7, 8) for task in ("knn", "linear")
    ]
    assert (tmp_path / "given/simclr/seed-7/checkpoint-3").is_dir()  # not ours to clear away
    cell = json.loads((tmp_path / "table/cells/simclr/seed-7/pretrain.json").read_text(encoding="utf-8"))
    assert (cell["steps"], cell["seconds"], cell["cpu_seconds"], cell["images_seen"]) == (6, 19.0, None, None)
    assert cell["fingerprint"].keys() == {"weights", "seed"}
    row = next(row for row in summary_of(tmp_path / "table")["rows"] if row["metric"] == "accuracy stage4")
    assert row["methods"]["simclr"]["values"] == {"7": pytest.approx(0.17), "8": pytest.approx(0.18)}
    table = (tmp_path / "table/comparison.md").read_text(encoding="utf-8")
    assert "| simclr" in table and "None" not in table

    # The cells are enough for the table: the weights may be gone.
    for seed in (7, 8):
        for file in (tmp_path / "given/simclr" / f"seed-{seed}").iterdir():
            file.rmdir() if file.is_dir() else file.unlink()
    calls.clear()
    assert compare(recipe, tmp_path / "table", *words, methods="byol simclr", seeds="7 8") == 0
    assert calls == []


def test_weights_beside_another_programs_run_json_are_really_evaluated(tmp_path: Path) -> None:
    """As benchmarks/study/peers.py leaves them: a run.json with numbers, and no recipe of this package."""
    from transformers import ResNetBackbone, ResNetConfig

    from ladder_training import evaluation

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetBackbone(config).save_pretrained(tmp_path / "given")
    (tmp_path / "given/run.json").write_text(json.dumps({"method": "simclr", "steps": 500}), encoding="utf-8")
    result = evaluation.knn(str(tmp_path / "given"), "digits", image_size=32)
    assert set(result.metrics) >= {"stage1", "stage4", "all"}


def test_the_table_says_what_imported_weights_are(
    recipe: str, tmp_path: Path, variants: str, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"kind": "DeepMind names", "file": "byol.pkl", "sha256": "ab" * 32, "padding": "same"}
    folder = tmp_path / "given/simclr/seed-7"
    backbone(folder, status="imported", license="cc-by-nc-4.0", hardware=None, imported=said)
    assert compare(recipe, tmp_path / "table", "--variants", variants, methods="byol simclr", seeds="7") == 0
    cell = json.loads((tmp_path / "table/cells/simclr/seed-7/pretrain.json").read_text(encoding="utf-8"))
    assert cell["imported"] == {**said, "license": "cc-by-nc-4.0"}
    assert (cell["steps"], cell["seconds"], cell["hardware"]) == (None, None, None)  # another machine's, not this one
    line = f"imported from byol.pkl (DeepMind names, sha256 {'ab' * 8}, licence cc-by-nc-4.0, same padding)"
    assert f"simclr, seed 7: {line}" in (tmp_path / "table/comparison.md").read_text(encoding="utf-8")


def test_other_weights_in_the_same_folder_are_noticed(
    recipe: str, tmp_path: Path, variants: str, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = backbone(tmp_path / "given/simclr/seed-7")
    words = ("--variants", variants)
    assert compare(recipe, tmp_path / "table", *words, methods="byol simclr", seeds="7") == 0
    backbone(folder, b"other weights")
    assert compare(recipe, tmp_path / "table", *words, methods="byol simclr", seeds="7") == 2
    assert "was made with weights" in capsys.readouterr().err


def test_weights_that_are_not_there_are_named_before_anything_runs(
    recipe: str, tmp_path: Path, variants: str, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    backbone(tmp_path / "given/simclr/seed-7")
    assert compare(recipe, tmp_path / "table", "--variants", variants, methods="byol simclr", seeds="7 8") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "simclr/seed-8 holds no model.safetensors: train seed 8 first" in line
    assert calls == []


def test_every_shard_counts_and_one_file_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    folder, cell = backbone(tmp_path / "whole"), tmp_path / "no_cell.json"
    assert given_fingerprint(folder, cell, 7) == {"weights": hashlib.sha256(b"weights").hexdigest()[:16], "seed": 7}
    shards = [backbone(tmp_path / "shards") / f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    (tmp_path / "shards" / "model.safetensors").unlink()
    for shard in shards:
        shard.write_bytes(b"first")
    before = given_fingerprint(tmp_path / "shards", cell, 7)
    shards[1].write_bytes(b"other")
    assert given_fingerprint(tmp_path / "shards", cell, 7) != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("simclr: {weights: runs/simclr}", "must be a folder's name with {seed} in it"),
        ("simclr: {weights: 3}", "must be a folder's name with {seed} in it"),
        ("simclr: {weights: 'runs/{seed}', learning_rate: 1}", "no other field can stand beside it"),
    ],
)
def test_a_variant_of_given_weights_is_checked(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "variants.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said.replace("{", r"\{").replace("}", r"\}")):
        read_variants(str(path))


def test_a_given_method_is_not_trained_here(variants: str) -> None:
    method = find_method("simclr", read_variants(variants))
    assert method.trained and not method.trained_here
    assert find_method("byol", {}).trained_here and not find_method("random", {}).trained_here
