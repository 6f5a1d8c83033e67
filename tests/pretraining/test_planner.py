"""The planner: six machines and data sets, every plan within the memory that it says, and every given option kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from helpers.scripts import loaded_script
from ladder_training.config.backbones import BACKBONES, named_backbone
from ladder_training.config.recipe import RECIPE_FOLDER, read_recipe, resolve
from ladder_training.errors import UserError
from ladder_training.pretraining.build import build_model, network_config, training_arguments
from ladder_training.pretraining.facts import measure_network
from ladder_training.pretraining.plan_text import plan_table, readable_time, recipe_text
from ladder_training.pretraining.planner import COSTS, GIB, Gpu, heads, make_plan

with loaded_script("benchmarks/plan_memory.py") as script:  # which measures what these plans need
    CASES, LAPTOP, ONE_GPU, EIGHT = script.CASES, script.TWO_CORES, script.ONE_GPU, script.EIGHT_GPUS
    PHOTOS, STREAM = script.PHOTOS, script.STREAM
EXPECTED = {  # backbone, view size, images per device, images per step, steps, workers
    "200 images of 64 pixels": ("resnet-tiny", 64, 32, 32, 625, 0),
    "5,000 photographs": ("resnet-tiny", 96, 64, 64, 1000, 0),
    "a million as a stream": ("resnet50", 224, 128, 128, 781_250, 15),
    "one GPU of 24 GB": ("resnet50", 224, 128, 128, 156_250, 15),
    "a stream on two cores": ("resnet-tiny", 96, 64, 64, 1000, 0),
    "eight GPUs": ("resnet50", 224, 256, 2048, 62_556, 11),
}


@pytest.mark.parametrize("case", CASES)
def test_six_cases(case: str, tmp_path: Path) -> None:
    images, machine = CASES[case]
    plan = make_plan(images, machine, {})
    values = plan.values
    assert (
        values["backbone"],
        values["image_size"],
        values["per_device_train_batch_size"],
        plan.global_batch,
        plan.steps,
        values["dataloader_num_workers"],
    ) == EXPECTED[case]
    assert plan.fits and plan.host_bytes <= machine.memory
    assert plan.device_bytes <= (0.85 * machine.gpus[0].memory if machine.gpus else 0)
    assert values["image_size"] <= images.side
    text = plan_table(plan)
    print(text)
    assert f"{values['image_size']} pixels" in text and "of memory" in text and "MORE THAN THERE IS" not in text
    assert ("accelerate launch" in text) == (len(machine.gpus) > 1)
    # The recipe that is written says the same and can be used.
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(plan))
    recipe = resolve(read_recipe(path), {"bf16": False})
    assert {**recipe.values, "bf16": values.get("bf16")} == {**values, "bf16": values.get("bf16")}
    assert network_config(recipe).projection_hidden_size == values["projection_hidden_size"]
    assert training_arguments(recipe, tmp_path).max_steps == plan.steps


def test_rates_go_with_the_optimizer_and_the_batch() -> None:
    small = make_plan(*CASES["5,000 photographs"], {}).values
    assert (small["optimizer"], small["learning_rate"], small["base_momentum"]) == ("adamw", 2e-3, 0.97)
    large = make_plan(*CASES["eight GPUs"], {})
    assert (large.values["optimizer"], large.values["base_learning_rate"]) == ("lars", 0.45)
    assert "lars 3.6," in plan_table(large)
    assert make_plan(PHOTOS, ONE_GPU, {"backbone": "dinov2-small"}).values["learning_rate"] == 5e-4


@pytest.mark.parametrize(
    "given",
    [
        {"image_size": 64},
        {"per_device_train_batch_size": 16},
        {"max_steps": 7},
        {"learning_rate": 1e-2},
        {"backbone": "convnext-tiny", "image_size": 128},
        {"dataloader_num_workers": 1},
        {"optimizer": "sgd"},
        {"num_train_epochs": 3.0},
        {"method": "byol", "seed": 5},
    ],
)
def test_any_option_changes_the_plan_and_is_kept(given: dict) -> None:
    plan = make_plan(PHOTOS, ONE_GPU, given)
    assert plan.values.items() >= given.items()
    assert plan.fits


def test_digits_have_the_views_of_their_recipe() -> None:
    plan = make_plan(replace(PHOTOS, name="digits", side=32, count=1428), ONE_GPU, {})
    recipe = yaml.safe_load((RECIPE_FOLDER / "digits.yaml").read_text(encoding="utf-8"))
    for name in ("min_scale", "flip", "blur", "solarize"):
        assert plan.values[name] == recipe[name]
    assert "flip" not in make_plan(PHOTOS, ONE_GPU, {}).values
    assert make_plan(replace(PHOTOS, name="digits"), ONE_GPU, {"flip": 0.5}).values["flip"] == 0.5


def test_what_follows_from_an_option() -> None:
    assert make_plan(PHOTOS, ONE_GPU, {"image_size": 64}).values["min_scale"] == 0.2
    epochs = make_plan(PHOTOS, ONE_GPU, {"num_train_epochs": 3.0})
    assert "max_steps" not in epochs.values and epochs.steps == 3 * (5000 // epochs.global_batch)
    assert "base_learning_rate" not in make_plan(PHOTOS, EIGHT, {"learning_rate": 1.0}).values
    assert make_plan(PHOTOS, LAPTOP, {"optimizer": "sgd"}).values["base_learning_rate"] == 0.05
    loaded = make_plan(PHOTOS, LAPTOP, {"from_model": "x"}, COSTS["resnet18"]).values
    assert loaded["learning_rate"] == 5e-4 and not {"backbone", "projection_hidden_size"} & set(loaded)


def test_a_smaller_card_gets_a_smaller_batch_and_too_much_is_said() -> None:
    batches = []
    for memory in (80, 24, 12, 6):
        machine = replace(ONE_GPU, gpus=(Gpu("a card", memory * GIB),))
        plan = make_plan(replace(PHOTOS, count=100_000), machine, {"backbone": "resnet50"})
        assert plan.fits
        batches.append(plan.values["per_device_train_batch_size"])
    assert batches == sorted(batches, reverse=True) and batches[0] > batches[-1]
    forced = make_plan(PHOTOS, ONE_GPU, {"backbone": "resnet50", "per_device_train_batch_size": 4096})
    assert not forced.fits and "MORE THAN THERE IS" in plan_table(forced)


@pytest.mark.parametrize(
    ("count", "batch", "why"), [(2, 2, "few"), (7, 4, "few"), (24, 8, "few"), (33, 8, "four batches"), (3, 2, "few")]
)
def test_few_images_get_a_batch_that_they_fill(count: int, batch: int, why: str) -> None:
    plan = make_plan(replace(PHOTOS, count=count), LAPTOP, {})
    assert plan.values["per_device_train_batch_size"] == batch and why in plan.reasons["batch"]
    each = make_plan(replace(PHOTOS, count=count), EIGHT, {}).values["per_device_train_batch_size"]
    assert each == 2 or 8 * each <= count


def test_images_that_are_held_out_are_in_no_pass() -> None:
    three = {"num_train_epochs": 3.0}
    some, every = (make_plan(images, LAPTOP, three) for images in (replace(PHOTOS, held_out=200), PHOTOS))
    assert some.steps == 3 * (4800 // some.global_batch) < every.steps == 3 * (5000 // every.global_batch)


def test_a_stream_of_large_files_gets_a_smaller_buffer() -> None:
    heavy = replace(STREAM, file_bytes=12_000_000)
    plan = make_plan(heavy, LAPTOP, {})
    assert plan.values["shuffle_buffer"] == 256 and plan.fits


@pytest.mark.parametrize("name", ["resnet-tiny", "resnet18", "dinov2-small"])
def test_the_costs_in_the_table_are_those_of_the_network(name: str) -> None:
    from modeling_ladder import LadderSiameseConfig

    found = measure_network(LadderSiameseConfig(backbone_config=named_backbone(name), **heads(name)), 224)
    assert found.parameters == COSTS[name].parameters
    assert found.bytes_per_pixel == pytest.approx(COSTS[name].bytes_per_pixel, rel=0.01)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_named_backbone_is_a_network_with_four_levels(name: str, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "r.yaml"
    path.write_text(f"model: {name.replace('-', '_').upper()}\n")
    with torch.device("meta"):
        model = build_model(resolve(read_recipe(path)))
    assert len(model.config.level_names) == 4 and model.config.level_names[-1] == model.config.stages[-1]
    if "patch_size" in BACKBONES[name]:
        assert model.config.level_names == ["stage3", "stage6", "stage9", "stage12"]


def test_other_names() -> None:
    assert named_backbone("user/name") is None
    assert named_backbone("timm/resnet18.a1_in1k") == {"model_type": "timm_wrapper", "architecture": "resnet18"}
    with pytest.raises(UserError, match=r"there is no backbone 'resnet5': .*did you mean resnet50"):
        named_backbone("resnet5")


def test_times() -> None:
    assert [readable_time(seconds) for seconds in (42, 720, 9000, 200_000)] == ["42 s", "12 min", "2.5 h", "2.3 days"]
