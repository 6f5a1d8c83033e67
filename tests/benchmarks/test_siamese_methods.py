"""The other methods of the study: each learns, momentum copies follow, and the harness leaves a backbone to score."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers.scripts import loaded_script
from ladder_training.config.recipe import read_recipe, resolve
from ladder_training.pretraining.build import build_model

NAMES = ("simclr", "mocov2", "simsiam", "barlowtwins", "vicreg", "swav", "dino", "densecl")


@pytest.fixture(scope="module")
def methods() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/siamese_methods.py") as module:
        yield module


def recipe_of(tmp_path: Path, seed: int = 3) -> Any:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "dataset: digits\nimage_size: 32\nbackbone_config: {model_type: resnet, layer_type: basic, embedding_size: 8, "
        "hidden_sizes: [8, 8, 16, 16], depths: [1, 1, 1, 1]}\nprojection_hidden_size: 16\nprojection_size: 8\n"
        "optimizer: adamw\nlearning_rate: 1e-3\nmax_steps: 3\nper_device_train_batch_size: 16\nuse_cpu: true\n"
    )
    return resolve(read_recipe(str(path)), {"method": "byol", "seed": seed, "output": str(tmp_path / "run")})


@pytest.mark.parametrize("name", NAMES)
def test_a_method_learns_two_views_by_heart(methods: ModuleType, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    method = methods.METHODS[name](build_model(recipe_of(tmp_path)).backbone).train()
    images = torch.randn(16, 3, 32, 32)
    first, second = images + 0.3 * torch.randn_like(images), images + 0.3 * torch.randn_like(images)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    found = []
    for step in range(60):
        loss = method(first, second)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in method.backbone.parameters() if p.requires_grad)
        optimizer.step()
        method.after_step(step + 1, 60)
        found.append(loss.item())
    # The losses of a queue start low, because it starts with noise: compare with their highest.
    assert sum(found[-5:]) / 5 < max(found[:20]) - 0.02 * abs(max(found[:20]))
    copies = [parameter for key, parameter in method.named_parameters() if "_momentum" in key]
    assert bool(copies) == (name in ("mocov2", "dino", "densecl"))
    assert not any(parameter.requires_grad for parameter in copies)


def test_the_momentum_copy_is_the_average_that_its_base_says(methods: ModuleType, tmp_path: Path) -> None:
    method = methods.MoCoV2(build_model(recipe_of(tmp_path)).backbone)
    weight, copy = next(method.projector.parameters()), next(method.projector_momentum.parameters())
    before = copy.clone()
    with torch.no_grad():
        weight += 1.0
    method.after_step(1, 100)
    torch.testing.assert_close(copy.data, 0.99 * before + 0.01 * weight.data)


def test_dinos_momentum_rises_to_one_on_a_cosine(methods: ModuleType, tmp_path: Path) -> None:
    method = methods.DINO(build_model(recipe_of(tmp_path)).backbone)
    assert [round(method.momentum_at(step, 101), 4) for step in (0, 50, 100)] == [0.99, 0.995, 1.0]


def test_swavs_first_steps_leave_its_prototypes_alone(methods: ModuleType, tmp_path: Path) -> None:
    method = methods.SwAV(build_model(recipe_of(tmp_path)).backbone)
    views = torch.randn(2, 8, 3, 32, 32)
    method(*views).backward()
    assert method.prototypes.heads[0].weight.grad is None
    method.after_step(methods.SwAV.FROZEN, 1000)
    method(*views).backward()
    assert method.prototypes.heads[0].weight.grad.abs().sum() > 0


def test_the_loss_keeps_full_precision_under_autocast(methods: ModuleType) -> None:
    class Sum(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left @ right

    ones = torch.full((1, 300), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        found = methods.FullPrecision(Sum())(ones, ones.T)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ones @ ones.T)


def test_the_harness_leaves_backbones_that_load_and_runs_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_of(tmp_path)
    words = [
        "peers.py",
        str(tmp_path / "tiny.yaml"),
        "--methods",
        "simclr",
        "--seeds",
        "3",
        "--output",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", words)
    with loaded_script("benchmarks/study/peers.py") as peers:
        peers.main()
    folder = tmp_path / "out/simclr/seed-3"
    said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert (said["steps"], said["images_seen"], said["method"]) == (3, 48, "simclr")
    from transformers import ResNetBackbone

    start, end = build_seeded(tmp_path), ResNetBackbone.from_pretrained(folder).state_dict()
    moved = [key for key, value in start.items() if value.is_floating_point() and not torch.equal(value, end[key])]
    assert len(moved) > len(start) // 2  # trained, and the same names as the study's backbones
    written = (folder / "model.safetensors").stat().st_mtime_ns
    with loaded_script("benchmarks/study/peers.py") as peers:
        peers.main()
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_supervised_batches_hold_every_image_once_a_pass_with_its_label() -> None:
    class Rows:
        def __getitem__(self, rows: list[int]) -> dict[str, list[int]]:
            return {"image": rows, "label": [10 * row for row in rows]}

        def __len__(self) -> int:
            return 7

    seeds: dict[tuple[int, int], int] = {}

    def views(image: int, seed: int) -> dict[str, torch.Tensor]:
        seeds[image, seed] = 1
        return {"pixel_values": torch.full((2, 3, 1, 1), float(image))}

    with loaded_script("benchmarks/study/supervised.py") as supervised:
        batches = supervised.labelled_batches(Rows(), views, 3, 0, "image", "label")
        found = [next(batches) for _ in range(4)]
    for first in (0, 2):  # two batches of three a pass; the seventh image is left out
        images = torch.cat([batch["pixel_values"][:, 0, 0, 0, 0] for batch in found[first : first + 2]])
        labels = torch.cat([batch["labels"] for batch in found[first : first + 2]])
        assert images.unique().numel() == 6
        assert torch.equal(10 * images, labels.float())
    assert len({seed for _, seed in seeds}) == len(seeds) == 12  # no two views are drawn alike


def test_the_supervised_bound_learns_its_labels(tmp_path: Path) -> None:
    with loaded_script("benchmarks/study/supervised.py") as supervised:
        torch.manual_seed(0)
        method = supervised.Supervised(build_model(recipe_of(tmp_path)).backbone, classes=2)
        view, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 2
        optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
        losses = []
        for _ in range(20):
            loss = method(view, view, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] == pytest.approx(0.69, abs=0.3)
    assert losses[-1] < losses[0] / 5


def build_seeded(tmp_path: Path) -> dict[str, torch.Tensor]:
    from transformers import set_seed

    set_seed(3)
    backbone = build_model(recipe_of(tmp_path)).backbone
    return {key.removeprefix("model."): value for key, value in backbone.state_dict().items()}
