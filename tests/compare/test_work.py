"""Comparisons that really train: the same data for every method, whole cells, gradient shares, several processes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import ResNetConfig, set_seed

from helpers.models import tiny_resnet
from ladder_training.cli.entry import main
from ladder_training.compare import gradients
from ladder_training.compare.figures import comparison_figures
from ladder_training.compare.gradients import parameters_by_stage, shares
from ladder_training.config.recipe import Recipe, resolve
from ladder_training.pretraining.build import build_model, build_views, load_data, training_arguments
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

VALUES: dict[str, Any] = {
    "dataset": "digits",
    "image_size": 32,
    "backbone_config": {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 16,
        "hidden_sizes": [16, 16, 24, 32],
        "depths": [1, 1, 1, 1],
    },
    "projection_hidden_size": 16,
    "projection_size": 8,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 16,
    "max_steps": 6,
    "warmup_steps": 2,
    "logging_steps": 2,
    "monitor_steps": 3,
    "monitor_images": 100,
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(VALUES), encoding="utf-8")
    return str(path)


def test_methods_of_a_seed_start_from_the_same_backbone_and_see_the_same_views(tmp_path: Path) -> None:
    """The methods draw different numbers of heads, and must not move each other's images or backbone by that."""
    found = {}
    for method, seed in (("byol", 3), ("ladder", 3), ("simsiam", 3), ("byol", 4)):
        resolved = resolve(Recipe("tiny", "", {**VALUES, "method": method, "seed": seed}, "tiny"))
        arguments = training_arguments(resolved, tmp_path / "run")
        set_seed(arguments.seed)
        model = build_model(resolved)
        data = load_data(resolved)
        trainer = LadderTrainer(model, arguments, data.train, data.monitoring, transform=build_views(resolved))
        torch.rand(len(found))  # what training draws must not matter either
        loader = iter(trainer.get_train_dataloader())
        found[method, seed] = (model.backbone.state_dict(), [next(loader) for _ in range(2)])
    weights, batches = found["byol", 3]
    for other in (("ladder", 3), ("simsiam", 3)):
        for name, tensor in found[other][0].items():
            assert torch.equal(tensor, weights[name]), name
        for first, second in zip(batches, found[other][1], strict=True):
            for name in ("pixel_values", "view_boxes", "view_flips"):
                assert torch.equal(first[name], second[name])
    assert not torch.equal(batches[0]["pixel_values"], found["byol", 4][1][0]["pixel_values"])
    assert not torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])
    name = "embedder.embedder.convolution.weight"
    assert not torch.equal(weights[name], found["byol", 4][0][name])


def test_a_whole_comparison_on_digits(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    compute_loss = LadderTrainer.compute_loss

    def recording(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.setdefault(Path(self.args.output_dir).parent.name, []).append(inputs["pixel_values"].clone())
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(LadderTrainer, "compute_loss", recording)
    listed = tmp_path / "evaluations.yaml"
    listed.write_text("- {task: knn, dataset: digits}\n", encoding="utf-8")
    folder = tmp_path / "out"
    command = ["compare", recipe, "--methods", "byol", "ladder", "stage4.global", "random", "--seeds", "0"]
    command += ["--evaluations", str(listed), "--output", str(folder)]
    assert main(command) == 0

    # The same images and views, step by step.
    assert [len(seen[name]) for name in ("byol", "ladder", "stage4.global")] == [6, 6, 6]
    for name in ("ladder", "stage4.global"):
        assert all(torch.equal(a, b) for a, b in zip(seen["byol"], seen[name], strict=True))
    assert "random" not in seen

    cells = {
        path.relative_to(folder / "cells").as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "cells").rglob("*.json")
    }
    trained = ("byol", "ladder", "stage4.global")
    expected = {f"{name}/seed-0/{cell}.json" for name in trained for cell in ("pretrain", "knn-digits", "gradients")}
    assert {*cells} == expected | {"random/seed-0/pretrain.json", "random/seed-0/knn-digits.json"}
    pretrain = cells["ladder/seed-0/pretrain.json"]
    assert (pretrain["status"], pretrain["steps"], pretrain["images_seen"]) == ("finished", 6, 96)
    assert pretrain["seconds"] > 0
    assert pretrain["cpu_seconds"] > 0
    levels = [f"stage{number}.{kind}" for number in (1, 2, 3, 4) for kind in ("global", "local")]
    assert list(pretrain["log"]["loss"]) == ["step", *levels, "total"]
    assert pretrain["log"]["loss"]["step"] == [2, 4, 6]
    assert list(pretrain["log"]["knn"]) == ["step", "stage1", "stage2", "stage3", "stage4", "all"]
    assert pretrain["log"]["knn"]["step"] == [0, 3, 6]
    # One global level on the last stage is BYOL, to the last bit.
    for name in ("pretrain", "knn-digits", "gradients"):
        one, other = cells[f"byol/seed-0/{name}.json"], cells[f"stage4.global/seed-0/{name}.json"]
        for part in ("log", "metrics", "start", "end"):
            assert one.get(part) == other.get(part)
    # Training began where the untrained network stands.
    assert pretrain["log"]["knn"]["stage4"][0] == cells["byol/seed-0/pretrain.json"]["log"]["knn"]["stage4"][0]
    gradients = cells["ladder/seed-0/gradients.json"]
    for when in ("start", "end"):
        for row in gradients[when]["share"].values():
            assert sum(row.values()) == pytest.approx(1.0, abs=1e-4)
        assert gradients[when]["share"]["stage4"]["stage1.local"] == 0.0
        assert gradients[when]["share"]["stage1"]["stage1.local"] > 0.0
    assert not list((folder / "runs").rglob("checkpoint-*"))
    assert (folder / "runs/ladder/seed-0/pretraining/config.json").exists()
    pictures = {"differences", "knn", "knn_time", "steps_to_reach", "loss", "gradients"}
    assert {path.stem for path in (folder / "figures").iterdir()} == pictures
    for picture in (folder / "figures").iterdir():
        assert picture.read_bytes()[:4] == b"\x89PNG"

    # Weights lost, one cell lost: only that run is made again, and gives the same figures.
    lost = folder / "cells/ladder/seed-0/knn-digits.json"
    before = cells["ladder/seed-0/knn-digits.json"]["metrics"]
    lost.unlink()
    shutil.rmtree(folder / "runs")
    seen.clear()
    assert main(command) == 0
    assert list(seen) == ["ladder"]
    assert json.loads(lost.read_text(encoding="utf-8"))["metrics"] == before


def test_a_run_that_collapses_is_a_cell_with_its_log(recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ["compare", recipe, "--methods", "byol", "--seeds", "0", "--output", str(folder)]
    assert main([*command, "--collapse_threshold", "5"]) == 0
    cells = sorted(path.name for path in (folder / "cells").rglob("*.json"))
    assert cells == ["pretrain.json"]
    cell = json.loads((folder / "cells/byol/seed-0/pretrain.json").read_text(encoding="utf-8"))
    assert cell["status"] == "collapsed"
    assert "stage4.global has collapsed at step" in cell["reason"]
    assert cell["log"]["std"]["step"]
    assert "collapsed (seeds 0)" in (folder / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_processes_give_the_same_cells(recipe: str, tmp_path: Path) -> None:
    listed = tmp_path / "evaluations.yaml"
    listed.write_text("- {task: knn, dataset: digits}\n", encoding="utf-8")
    found = []
    for jobs in ("1", "2"):
        folder = tmp_path / f"jobs-{jobs}"
        command = ["compare", recipe, "--methods", "byol", "ladder", "--seeds", "0", "--jobs", jobs, "--max_steps", "4"]
        command += ["--evaluations", str(listed), "--output", str(folder), "--gradients", "false"]
        command += ["--stability", "--stability_steps", "2", "--stability_batch_sizes", "16"]
        assert main([*command, "--stability_learning_rates", "1e-3"]) == 0
        found.append(
            {
                path.relative_to(folder).as_posix(): json.loads(path.read_text(encoding="utf-8"))
                for path in (folder / "cells").rglob("*.json")
            }
        )
    assert {*found[0]} == {*found[1]}
    assert len(found[0]) == 6
    for name, cell in found[0].items():
        for part in ("status", "fingerprint"):
            assert cell.get(part) == found[1][name].get(part), name
        if "log" in cell:
            # Threads may add up in another order, so a neighbour or two of 100 images may differ.
            for stage, values in cell["log"]["knn"].items():
                assert values == pytest.approx(found[1][name]["log"]["knn"][stage], abs=0.03)


def test_gradient_shares_are_those_of_each_levels_own_loss(
    tiny_backbone: ResNetConfig, view_pairs: Callable[..., dict[str, torch.Tensor]]
) -> None:
    torch.manual_seed(0)
    levels = {"level_names": ["stage2", "stage4"], "level_losses": ["both", "global"], "level_weights": [0.5, 2.0]}
    model = LadderSiameseForPreTraining(
        LadderSiameseConfig(backbone_config=tiny_backbone, projection_hidden_size=8, projection_size=4, **levels)
    )
    batch = view_pairs(batch=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = shares(model, [batch, batch])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.config.level_weights == [0.5, 2.0]
    assert list(found["norm"]) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert set(found["norm"]["stem"]) == {"stage2.local", "stage2.global", "stage4.global"}
    # By other means: the gradient of a model that has only this level, with its weight.
    only = LadderSiameseForPreTraining(
        LadderSiameseConfig(
            backbone_config=tiny_backbone,
            projection_hidden_size=8,
            projection_size=4,
            level_names=["stage4"],
            level_losses=["global"],
            level_weights=[2.0],
        )
    )
    only.load_state_dict({name: tensor for name, tensor in before.items() if name in only.state_dict()})
    only.train()(**batch).loss.backward()
    for stage, group in (("stage1", "encoder.stages.0."), ("stage4", "encoder.stages.3."), ("stem", "embedder.")):
        gradient = torch.cat([p.grad.flatten() for name, p in only.backbone.named_parameters() if group in name])
        assert found["norm"][stage]["stage4.global"] == pytest.approx(gradient.norm().item(), rel=1e-3)
    # Later stages take nothing from an earlier level, and the only level left is the whole of it.
    assert found["norm"]["stage3"]["stage2.local"] == 0.0
    assert found["share"]["stage4"] == {"stage2.local": 0.0, "stage2.global": 0.0, "stage4.global": 1.0}
    assert found["cosine"]["stage4"]["stage4.global"] == pytest.approx(1.0, abs=1e-4)
    row = found["norm"]["stage1"]
    assert found["share"]["stage1"]["stage2.local"] == pytest.approx(row["stage2.local"] / sum(row.values()))


@pytest.mark.parametrize(("use_cpu", "device"), [(True, "cpu"), (False, "meta")])
def test_gradient_shares_are_measured_where_the_run_trains(
    use_cpu: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = SimpleNamespace(arguments={"use_cpu": use_cpu}, values={"seed": 0})
    found: list[str] = []

    def noted(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        found.extend([next(model.parameters()).device.type, batches[0]["pixel_values"].device.type])
        return {}

    tiny = LadderSiameseForPreTraining(
        LadderSiameseConfig.byol(backbone_config=tiny_resnet(), projection_hidden_size=8, projection_size=4)
    )
    tiny.save_pretrained(tmp_path / "pretraining")
    monkeypatch.setattr(gradients, "choose_device", lambda asked: torch.device("meta"))
    monkeypatch.setattr(gradients, "view_batches", lambda recipe: [{"pixel_values": torch.zeros(1)}])
    monkeypatch.setattr(gradients, "build_model", lambda recipe: tiny)
    monkeypatch.setattr(gradients, "shares", noted)
    gradients.gradient_shares(recipe, tmp_path)
    assert found == [device] * 4


def test_every_parameter_of_a_backbone_belongs_to_one_stage(tiny_backbone: ResNetConfig) -> None:
    from transformers import ConvNextBackbone, ConvNextConfig, ResNetBackbone

    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1])
    for backbone in (ResNetBackbone(tiny_backbone), ConvNextBackbone(config)):
        groups = parameters_by_stage(backbone, backbone.config.stage_names)
        counted = sum(len(group) for group in groups.values())
        assert counted == sum(parameter.requires_grad for parameter in backbone.parameters())
        assert list(groups) == ["stem", "stage1", "stage2", "stage3", "stage4"]


def test_figures_of_what_is_there_and_of_nothing() -> None:
    empty = {
        "methods": ["byol"],
        "baseline": "byol",
        "rows": [],
        "curves": {"knn": {}, "loss": {}, "std": {}},
        "steps_to_reach": [],
        "gradients": {},
        "stability": {},
        "pretraining": {"byol": {}},
    }
    assert comparison_figures(empty) == {}
    curve = {"stage4": {"step": [0, 5], "mean": [0.1, 0.5], "std": [None, None]}}
    runs = [
        {"learning_rate": rate, "batch_size": 16, "min_std": None, "knn": {}, "collapsed": True} for rate in (0.1, 1.0)
    ]
    some = {
        **empty,
        "curves": {"knn": {"byol": curve}, "loss": {}, "std": {}},
        "stability": {"seed": 0, "steps": 5, "runs": {"byol": runs}},
    }
    found = comparison_figures(some)
    assert {*found} == {"knn.png", "stability_byol.png"}  # no time axis without seconds
    assert found == comparison_figures(some)
