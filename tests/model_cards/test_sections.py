"""Results and comparisons on a card: tables with protocol and spread, and a model-index of what was measured."""

import math
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from helpers.card_texts import metadata, sections
from helpers.hub_server.runs import evaluation, log_history, run_facts, write_json
from ladder_model_cards import build_card
from ladder_model_cards.run_files import RunFiles
from ladder_model_cards.stages import stage_size


def test_one_seed_shows_the_sampling_error(run: Path) -> None:
    text = sections(build_card(run).text)["Results"]
    share, images = 0.7, 360
    square = 1.96**2 / images
    error = 196 / (1 + square) * math.sqrt((share * (1 - share) + square / 4) / images)
    assert f"| Stage 3 (4 × 4 positions, 24 channels) | 70.0 ± {error:.1f} % |" in text
    assert "Fitted on 1,437 images (train), scored on 360 images (test). One seed (0)" in text
    assert "Protocol: neighbours 20, temperature 0.1, image size 64." in text


def test_protocols_and_metrics_are_words(run: Path) -> None:
    unsaid = {"split": None, "num_workers": 4, "trust_paths": False}
    protocol = {**unsaid, "flip": True, "frozen": False, "image_mean": [0.5, 0.4], "k": 20}
    metrics = {"stage1": {"accuracy": 1.0, "mean_class_accuracy": 0.5, "accuracy_top5": 0.0}}
    write_json(run / "evaluation" / "knn-digits.json", evaluation(protocol=protocol, metrics=metrics))
    text = sections(build_card(run).text)["Results"]
    assert "| Stage 1 | mean class accuracy | 50.0 % |" in text
    assert "| Stage 1 | top-5 accuracy | 0.0 ± 0.5 % |" in text
    assert "Protocol: flip, no frozen, image mean 0.5 0.4, k 20." in text
    assert "| Stage 1 (16 × 16 positions, 8 channels) | 100.0 ± 0.5 % |" in text, (
        "the error of 360 right images is not 0"
    )


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("user/cats", "user/cats"), ("my photos (2024)", "my-photos-2024"), ("***", "local")],
)
def test_a_data_set_is_named_as_it_is_and_by_an_identifier(run: Path, name: str, identifier: str) -> None:
    write_json(run / "evaluation" / "knn-digits.json", evaluation() | {"dataset": name})
    found = [result["dataset"] for result in metadata(build_card(run).text)["model-index"][0]["results"]]
    assert {(one["name"], one["type"]) for one in found} == {(name, identifier)}


def test_several_seeds_show_mean_and_deviation(run: Path) -> None:
    shifts = [0.0, 0.03, -0.01]
    for seed, shift in enumerate(shifts):
        write_json(run / "evaluation" / f"knn-digits-seed{seed}.json", evaluation(seed=seed, shift=shift))
    card = build_card(run).text
    text = sections(card)["Results"]
    mean, deviation = 50 + 100 * statistics.fmean(shifts), 100 * statistics.stdev(shifts)
    assert f"| Stage 1 (16 × 16 positions, 8 channels) | {mean:.1f} ± {deviation:.1f} % |" in text
    assert "over 3 seeds (0, 1, 2)" in text and text.count("### ") == 1
    values = [m["value"] for r in metadata(card)["model-index"][0]["results"] for m in r["metrics"]]
    assert pytest.approx(mean / 100, abs=1e-6) == values[0]
    other = evaluation(seed=7, protocol={"neighbours": 200})
    write_json(run / "evaluation" / "knn-digits-k200.json", other)
    assert sections(build_card(run).text)["Results"].count("### ") == 2, "another protocol is another measurement"


def test_other_tasks_classes_and_undefined_values(run: Path) -> None:
    metrics = {"box": {"ap": 0.312, "ap50": 0.5}, "mask": {"ap": None}}
    changes = {"classes": ["cat", "dog"], "per_class": {"ap": [0.25, None]}, "notes": ["3 images left out"]}
    write_json(run / "evaluation" / "detection-pets.json", evaluation("detection", metrics=metrics, **changes))
    card = build_card(run).text
    text = sections(card)["Results"]
    assert "| Box | 31.2 % |" in text and "| Box | ap50 | 50.0 % |" in text and "Note: 3 images left out" in text
    assert "| cat | 25.0 % |" in text and "| dog | — |" in text
    tasks = [r["task"]["type"] for r in metadata(card)["model-index"][0]["results"]]
    assert "object-detection" in tasks


def compared() -> dict[str, Any]:
    """comparison.json as `ladder compare` writes it (tests/test_compare.py puts a real one on a card)."""
    figures = {
        "byol": {"values": {"0": 0.5, "1": 0.52}, "mean": 0.51, "std": 0.0141, "count": 2, "collapsed": []},
        "ladder": {
            "values": {"0": 0.6, "1": 0.63},
            "mean": 0.615,
            "std": 0.0212,
            "count": 2,
            "collapsed": [],
            "difference": {"mean": 0.105, "low": 0.0415, "high": 0.1685, "count": 2},
        },
        "byol_wide": {
            "values": {},
            "mean": None,
            "std": None,
            "count": 0,
            "collapsed": [0, 1],
            "difference": {"mean": None, "low": None, "high": None, "count": 0},
        },
    }
    row = {"evaluation": "knn-digits", "task": "knn", "dataset": "digits", "methods": figures}
    cost = {"byol": {"0": {"steps": 40, "seconds": 60}, "1": {"steps": 40, "seconds": 62}}}
    cost["ladder"] = {"0": {"steps": 40, "seconds": 80}, "1": {"steps": 40, "seconds": 80}}
    return {
        "recipe": "digits",
        "dataset": "digits",
        "methods": ["byol", "ladder", "byol_wide"],
        "baseline": "byol",
        "seeds": [0, 1],
        "rows": [
            {**row, "metric": "accuracy stage4", "headline": True},
            {**row, "metric": "accuracy all", "headline": False},
        ],
        "pretraining": cost,
        "notes": ["detection is left out: no boxes"],
    }


def test_a_constant_answer_is_shown_and_is_no_result_of_the_model(run: Path) -> None:
    metrics = {"upernet": {"mean_iou": 0.31}, "constant": {"mean_iou": 0.027}}
    protocol = {"class_names_of_the_data": ["a word"] * 12, **{f"setting_{i}": i for i in range(30)}}
    changes = {"metrics": metrics, "protocol": protocol, "count": {"fit": 9, "score": 4}}
    write_json(run / "evaluation" / "a-segmentation.json", evaluation("segmentation", **changes))
    card = build_card(run).text
    text = sections(card)["Results"]
    assert text.index("k nearest neighbours on") < text.index("Semantic segmentation on")
    assert "| Output | mean IoU |" in text and "| Upernet | 31.0 % |" in text
    assert "| always the same answer, to compare | 2.7 % |" in text
    assert "<summary>Protocol</summary>" in text and "setting 29 29." in text
    values = [m["value"] for r in metadata(card)["model-index"][0]["results"] for m in r["metrics"]]
    assert 0.31 in values and 0.027 not in values


def test_comparison_with_the_twin(run: Path, tmp_path: Path) -> None:
    write_json(run / "comparison.json", compared())
    text = sections(build_card(run).text)["Compared with the same budget"]
    assert "| Measured | BYOL | Ladder Siamese | Difference |" in text
    assert (
        "| Measured | BYOL | byol&#95;wide | Difference |" in text
        or "| Measured | BYOL | byol_wide | Difference |" in text
    )
    shown = "51.0 ± 1.4 % | 61.5 ± 2.1 % | +10.5 (+4.2 to +16.9) |"
    assert f"| **k nearest neighbours on digits, accuracy stage4** | {shown}" in text
    assert f"| k nearest neighbours on digits, accuracy all | {shown}" in text
    assert "accuracy all | 51.0 ± 1.4 % | collapsed | — |" in text
    assert "over 2 seeds (0, 1)" in text and "Note: detection is left out&#58; no boxes" in text
    assert "BYOL 40 steps in 1 min 1 s; Ladder Siamese 40 steps in 1 min 20 s" in text
    # A run inside the folder of a comparison needs no copy; its own evaluations alone make the model-index.
    inner = tmp_path / "study" / "runs" / "ladder" / "seed-0"
    shutil.copytree(run, inner)
    (inner / "comparison.json").rename(tmp_path / "study" / "comparison.json")
    assert sections(build_card(inner).text)["Compared with the same budget"] == text
    values = [m["value"] for r in metadata(build_card(inner).text)["model-index"][0]["results"] for m in r["metrics"]]
    assert 0.615 not in values and 0.51 not in values
    alone = {**compared(), "methods": ["byol"]}
    write_json(run / "comparison.json", alone)
    assert "Compared" not in build_card(run).text, "one method is no comparison"
    write_json(run / "comparison.json", {**compared(), "seeds": [0]})
    assert "one seed, no spread" in build_card(run).text
    for broken in ({}, {"rows": 3}, {"methods": 7, "rows": [1]}, {"methods": ["a", "b"], "rows": [{"methods": [2]}]}):
        write_json(run / "comparison.json", broken)
        assert "Compared" not in build_card(run).text


def test_the_paper_is_cited_and_none_of_its_numbers(full_run: Path) -> None:
    text = build_card(full_run).text
    assert "Yoshihashi, Ryota" in text and "arXiv:2211.13844" in text and "(Yoshihashi et al.)" in text
    assert not re.search(r"\+?(1\.0|1\.2|3\.1) points", text)


def test_a_gain_over_the_untrained_network_and_the_best_picture_come_before_the_code(run: Path) -> None:
    untrained = {stage: {"accuracy": 0.25} for stage in ("stage1", "stage2")}
    write_json(run / "evaluation" / "knn-digits.json", evaluation(seed=0, shift=0.0) | {"untrained": untrained})
    write_json(run / "trainer_state.json", {"log_history": log_history()})
    write_json(run / "run.json", run_facts(monitoring_images=369))
    text = build_card(run).text
    assert "| Stage | accuracy (gain) | untrained |" in text
    assert re.search(
        r"\| Stage 1 \(16 × 16 positions, 8 channels\) \| 50\.0 ± \d\.\d % \(\+25\.0\) \| 25\.0 % \|", text
    )
    assert re.search(r"\| Stage 3 .* \| 70\.0 ± \d\.\d % \| — \|", text), (
        "a stage that was not measured untrained says so"
    )
    order = ["\n# ", "](figures/knn.png)", "| The&nbsp;model", "## Results", "## Use it"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.count("](figures/knn.png)") == 1
    assert "on 369 held-out images" in text
    (run / "figures").mkdir(exist_ok=True)
    for name in ("pca.png", "neighbours-stage4.png"):
        (run / "figures" / name).write_bytes(b"")
    text = build_card(run).text
    assert text.index("](figures/pca.png)") < text.index("| The&nbsp;model") < text.index("](figures/knn.png)")


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("resnet", {"hidden_sizes": [8, 16]}, "7 × 7 positions, 16 channels"),
        ("resnet", {"hidden_sizes": [8, 16], "downsample_in_first_stage": True}, "4 × 4 positions, 16 channels"),
        ("convnext", {"hidden_sizes": [8, 16], "patch_size": 4}, "7 × 7 positions, 16 channels"),
        ("swin", {"embed_dim": 24, "patch_size": 4}, "7 × 7 positions, 48 channels"),
        ("dinov2", {"hidden_size": 32, "patch_size": 14}, "4 × 4 positions, 32 channels"),
        ("resnet", {"hidden_sizes": "x"}, "7 × 7 positions"),
        ("something else", {}, ""),
    ],
)
def test_the_size_of_a_stage(kind: str, config: dict[str, Any], expected: str, tmp_path: Path) -> None:
    found = {"model_type": kind, "stage_names": ["stem", "stage1", "stage2"], **config}
    files = RunFiles(tmp_path, config=found, preprocessor={"size": {"height": 56, "width": 56}})
    assert stage_size(files, "stage2") == expected
