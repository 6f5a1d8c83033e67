"""Results and comparisons on a card: tables with protocol and spread, and a model-index of what was measured."""

import math
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from helpers.card_texts import metadata, sections
from helpers.hub_server.runs import evaluation, write_json
from ladder_model_cards import build_card


def test_one_seed_shows_the_sampling_error(run: Path) -> None:
    text = sections(build_card(run).text)["Results"]
    share, images = 0.7, 360
    square = 1.96**2 / images
    error = 196 / (1 + square) * math.sqrt((share * (1 - share) + square / 4) / images)
    assert f"| stage3 | 70.0 ± {error:.1f} % |" in text
    assert "Fitted on 1,437 images (train), scored on 360 images (test). One seed (0)" in text
    assert "Protocol: neighbours 20, temperature 0.1, image size 64." in text


def test_protocols_and_metrics_are_words(run: Path) -> None:
    protocol = {"split": None, "num_workers": 4, "flip": True, "frozen": False, "image_mean": [0.5, 0.4], "k": 20}
    metrics = {"stage1": {"accuracy": 1.0, "mean_class_accuracy": 0.5, "accuracy_top5": 0.0}}
    write_json(run / "evaluation" / "knn-digits.json", evaluation(protocol=protocol, metrics=metrics))
    text = sections(build_card(run).text)["Results"]
    assert "Protocol: flip, no frozen, image mean 0.5 0.4, k 20." in text
    assert "| Stage | accuracy | mean class accuracy | accuracy top5 |" in text
    assert "| stage1 | 100.0 ± 0.5 % | 50.0 % | 0.0 ± 0.5 % |" in text, "the error of 360 right images is not 0"


def test_several_seeds_show_mean_and_deviation(run: Path) -> None:
    shifts = [0.0, 0.03, -0.01]
    for seed, shift in enumerate(shifts):
        write_json(run / "evaluation" / f"knn-digits-seed{seed}.json", evaluation(seed=seed, shift=shift))
    card = build_card(run).text
    text = sections(card)["Results"]
    mean, deviation = 50 + 100 * statistics.fmean(shifts), 100 * statistics.stdev(shifts)
    assert f"| stage1 | {mean:.1f} ± {deviation:.1f} % |" in text
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
    assert "| box | 31.2 % | 50.0 % |" in text and "Note: 3 images left out" in text
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
    assert "| Output | mean IoU |" in text and "| upernet | 31.0 % |" in text
    assert "| always the same answer, to compare | 2.7 % |" in text
    assert "<summary>Protocol</summary>" in text and "setting 29 29." in text
    values = [m["value"] for r in metadata(card)["model-index"][0]["results"] for m in r["metrics"]]
    assert 0.31 in values and 0.027 not in values


def test_comparison_with_the_twin(run: Path, tmp_path: Path) -> None:
    write_json(run / "comparison.json", compared())
    text = sections(build_card(run).text)["Compared with the same budget"]
    head = "| Task | Data | Metric | BYOL | Ladder Siamese | byol_wide | Ladder Siamese − BYOL | byol_wide − BYOL |"
    assert head in text
    shown = "51.0 ± 1.4 % | 61.5 ± 2.1 % | collapsed | +10.5 (+4.2 to +16.9) | — |"
    assert f"| k nearest neighbours | digits | **accuracy stage4** | {shown}" in text
    assert f"| k nearest neighbours | digits | accuracy all | {shown}" in text
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
