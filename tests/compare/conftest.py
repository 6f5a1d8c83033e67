"""A comparison whose costly parts are replaced by notes of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.comparison import CURVES, RECIPE
from ladder_training import evaluation
from ladder_training.compare import figures, training_cell
from ladder_training.files import write_json


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything costly is replaced by a note of it; pretraining leaves a folder that looks finished."""
    found: list[str] = []

    def pretrain(recipe: Any, folder: Path) -> dict[str, Any]:
        method, place = folder.parent.name, folder.name
        found.append(f"pretrain {method} {place}")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {})
        write_json(folder / "run.json", {"status": "finished", "recipe": {"values": recipe.values}})
        log = [
            {"step": 3 * place, "knn/stage4": value, "knn/all": value, "std/stage4.global": 0.5}
            for place, value in enumerate(CURVES.get(method, [0.0, 0.0, 0.0]))
        ]
        log += [{"step": 6, "loss": 1.0, "loss/stage4.global": 1.0}]
        outcome = {"status": "finished", "reason": None, "steps": 6, "images_seen": 96, "batch_size": 16}
        return outcome | {"seconds": 60.0, "cpu_seconds": 30.0, "hardware": "test", "git_commit": None, "log": log}

    def task(name: str) -> Callable[..., SimpleNamespace]:
        def evaluate(model: str, dataset: str, *, test_dataset: Any, seed: int, **settings: Any) -> SimpleNamespace:
            method = Path(model).parent.name
            found.append(f"{name} {method} seed-{seed}")
            value = {"byol": 0.40, "ladder": 0.43}.get(method, 0.1) + 0.01 * seed * (seed if method == "byol" else 1)
            metrics = {"stage1": {"accuracy": 0.9}, "stage4": {"accuracy": value}, "all": {"accuracy": 0.95}}
            return SimpleNamespace(
                metrics=metrics,
                split="test",
                fit_split="train",
                count={"fit": 2, "score": 1},
                seconds=1.0,
                notes=[f"looked into {model}"],
            )

        return evaluate

    monkeypatch.setattr(training_cell, "pretrain_quietly", pretrain)
    for name in ("knn", "linear"):
        monkeypatch.setattr(evaluation, name, task(name), raising=False)
    monkeypatch.setattr(figures, "comparison_figures", lambda summary: {"knn.png": b"drawn"})
    return found
