"""Mistakes that only show when the network or the arguments are built: one line, exit code 2, nothing written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ConvNextConfig

from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.models.stage_sizes import check_image_size
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining, save_native_backbone

SMALL = "{model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1]}"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An unlabelled folder of twelve images."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("image_size: 16", "image_size 16 is too small for the stages of the backbone: stage3 has one cell"),
        ("image_size: 2", "32 pixels work"),
        ("backbone_config: {model_type: resnet, layer_type: foo}", "backbone_config: .*layer_type=foo"),
        ("backbone_config: {model_type: resnet, hiden_sizes: [8]}", "'hiden_sizes'; did you mean hidden_sizes"),
        ("backbone_config: {model_type: resnet9000}", "backbone_config: model_type is 'resnet9000'"),
        ("backbone_config: {model_type: resnet, num_channels: 1, hidden_sizes: [8], depths: [1]}", "takes 1 channels"),
        ("per_device_train_batch_size: 1", "per_device_train_batch_size must be at least 2"),
        ("learning_rate: -0.1", "learning_rate must be at least 0"),
        ("learning_rate: .nan", "learning_rate must be at least 0"),
        ("weight_decay: -1", "weight_decay must be at least 0"),
        ("lars_eta: -1", "lars_eta must be at least 0"),
        ("max_steps: 0", "max_steps is 0"),
        ("gradient_checkpointing: true", "activation_checkpointing"),
    ],
)
def test_a_recipe_that_cannot_train(images, tmp_path, capsys, lines, message) -> None:
    recipe = tmp_path / "recipe.yaml"
    values = {
        "dataset": images,
        "image_size": 32,
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "backbone_config": SMALL,
        "use_cpu": "true",
        "report_to": "none",
        **dict(line.split(": ", 1) for line in lines.splitlines()),
    }
    recipe.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    before = sorted(tmp_path.rglob("*"))
    assert main(["pretrain", str(recipe), "--output", str(tmp_path / "run")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "examples/s" not in line]
    assert len(errors) == 1, errors
    assert errors[0].startswith("ladder: error: ")
    assert re.search(message, errors[0]), errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test_dataset", "IMAGES"], "no label column"),
        (["--image_size", "8"], "image_size 8 is too small for the stages"),
    ],
)
def test_an_evaluation_without_labels_or_with_too_small_images(
    tiny_backbone, images, tmp_path, capsys, words, message
) -> None:
    config = LadderSiameseConfig(backbone_config=tiny_backbone, projection_hidden_size=8)
    save_native_backbone(LadderSiameseForPreTraining(config), tmp_path / "model")
    dataset = str(images) if "IMAGES" in words else "digits"
    words = [str(images) if word == "IMAGES" else word for word in words]
    before = sorted(tmp_path.rglob("*"))
    command = ["evaluate", "knn", "--model", str(tmp_path / "model"), "--dataset", dataset, *words]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ladder: error: ")]
    assert len(error) == 1
    assert message in error[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_size_check_changes_nothing_and_knows_other_backbones(tiny_backbone) -> None:
    torch.manual_seed(0)

    def model(backbone, **fields) -> LadderSiameseForPreTraining:
        heads = {"projection_hidden_size": 8, "projection_size": 8}
        return LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone, **heads, **fields)).train()

    resnet = model(tiny_backbone)
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    check_image_size(resnet, resnet.feature_maps, 32, "stage4")
    with pytest.raises(UserError, match="stage3 has one cell already, so stage4 adds none; 32 pixels work"):
        check_image_size(resnet, resnet.feature_maps, 16, "stage4")
    assert resnet.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    # A level at an early stage needs no more than that stage does.
    check_image_size(resnet, resnet.feature_maps, 8, "stage2")
    convnext = model(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))
    check_image_size(convnext, convnext.feature_maps, 32, "stage4")
    with pytest.raises(UserError, match="32 pixels work"):
        check_image_size(convnext, convnext.feature_maps, 16, "stage4")


def test_one_process_needs_no_backend_to_talk_to_others(images, tmp_path, monkeypatch) -> None:
    """A recipe for many processes is used by one, for example by `ladder compare`."""
    from ladder_training.config.recipe import Recipe, resolve
    from ladder_training.pretraining.build import training_arguments

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    values = {"dataset": str(images), "use_cpu": True, "ddp_backend": "gloo", "max_steps": 1}
    recipe = resolve(Recipe("one", "", values, "recipe one"))
    assert training_arguments(recipe, tmp_path / "out").world_size == 1
