"""A run's folder as `ladder pretrain` leaves it, made in milliseconds with tiny random weights."""

import json
from pathlib import Path
from typing import Any

STAGES = ["stage1", "stage2", "stage3", "stage4"]
LEVELS = ["stage1.local", "stage2.local", "stage3.global", "stage4.global"]
RECIPE = "dataset: digits\nmethod: ladder\nmax_steps: 40\nlicense: apache-2.0\n"


def varied_backbone(seed: int = 0) -> Any:
    """A `ResNetBackbone` with random weights, all four stages as features."""
    import torch

    from ..models import tiny_native_backbone

    model = tiny_native_backbone(seed, hidden_sizes=[8, 16, 24, 32], out_features=STAGES)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.1)
    return model


def save_backbone(folder: Path, seed: int = 0) -> None:
    """The native backbone and its preprocessor at a folder's root."""
    from transformers import ConvNextImageProcessor

    varied_backbone(seed).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875).save_pretrained(folder)


def save_pretraining(folder: Path, seed: int = 0) -> None:
    """The full checkpoint, its target moved a little away from the online network."""
    import torch

    from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

    torch.manual_seed(seed)
    levels = {"level_losses": ["local", "local", "global", "global"], "level_weights": [0.25, 0.25, 0.5, 1.0]}
    heads = {"projection_hidden_size": 16, "projection_size": 8}
    config = LadderSiameseConfig(backbone_config=varied_backbone(seed).config, **levels, **heads)
    model = LadderSiameseForPreTraining(config)
    with torch.no_grad():
        for parameter in model.target.parameters():
            parameter.add_(0.01)
    model.save_pretrained(folder / "pretraining")


def write_json(path: Path, value: Any) -> None:
    """Write a file as JSON, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def log_history(steps: int = 40) -> list[dict[str, Any]]:
    """What the Trainer logs: losses every 4 steps, a look at held-out images every 8."""
    entries: list[dict[str, Any]] = []
    for step in range(4, steps + 1, 4):
        losses = {f"loss/{level}": 2 - 0.02 * step - 0.1 * place for place, level in enumerate(LEVELS)}
        entries.append({"step": step, "epoch": step / 20, "loss": sum(losses.values()), "momentum": 0.97, **losses})
        if step % 8 == 0:
            look = {f"knn/{stage}": 0.3 + 0.01 * step + 0.05 * place for place, stage in enumerate(STAGES)}
            look |= {f"std/{level}": 0.9 - 0.002 * step for level in LEVELS}
            look |= {f"rank/{level}": 4 + 0.1 * step for level in LEVELS}
            entries.append({"step": step, "epoch": step / 20, "knn/all": 0.9, **look})
    return entries


def run_facts(**changes: Any) -> dict[str, Any]:
    """The content of run.json."""
    values = {"dataset": "digits", "method": "ladder", "max_steps": 40, "image_size": 64, "optimizer": "lars"}
    return {
        "status": "finished",
        "reason": None,
        "method": "ladder",
        "license": "apache-2.0",
        "recipe": {"name": "digits.yaml", "text": RECIPE, "values": values},
        "command": "ladder pretrain digits.yaml --output /home/someone/runs/digits",
        "seed": 0,
        "datasets": [
            {"name": "digits", "split": "train", "revision": None, "fingerprint": "f00f", "images": 1437},
        ],
        "images_seen": 2560,
        "steps": 40,
        "batch_size": 64,
        "seconds": 73.2,
        "hardware": "a test, 2 cores, no GPU",
        "versions": {"python": "3.11.7", "torch": "2.14.1", "transformers": "5.23.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "started": "2026-11-23T00:00:00+00:00",
        "finished": "2026-11-23T00:02:00+00:00",
        "starts": 1,
    } | changes


def evaluation(task: str = "knn", seed: int = 0, shift: float = 0.0, **changes: Any) -> dict[str, Any]:
    """The content of an evaluation's JSON file."""
    metrics = {stage: {"accuracy": 0.5 + 0.1 * place + shift} for place, stage in enumerate(STAGES)}
    return {
        "task": task,
        "dataset": "digits",
        "split": "test",
        "fit_split": "train",
        "model": "run",
        "metrics": metrics | {"all": {"accuracy": 0.9 + shift}},
        "protocol": {"neighbours": 20, "temperature": 0.1, "image_size": 64},
        "seed": seed,
        "count": {"fit": 1437, "score": 360},
        "seconds": 1.0,
        "notes": [],
        "versions": {},
        "date": "2026-11-23T00:03:00+00:00",
    } | changes


def make_run(folder: Path, *, seed: int = 0, log: bool = True, pretraining: bool = True) -> Path:
    """A finished run's folder; without `log` there is nothing to draw, which makes cards cheap."""
    folder.mkdir(parents=True, exist_ok=True)
    save_backbone(folder, seed)
    if pretraining:
        save_pretraining(folder, seed)
    write_json(folder / "run.json", run_facts())
    if log:
        write_json(folder / "trainer_state.json", {"global_step": 40, "log_history": log_history()})
    write_json(folder / "evaluation" / "knn-digits.json", evaluation())
    (folder / "checkpoint-40").mkdir(exist_ok=True)
    (folder / "checkpoint-40" / "optimizer.pt").write_bytes(b"not for the Hub")
    return folder
