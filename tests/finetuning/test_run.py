"""Fine-tuned folders: other libraries load them and compute the scores that were reported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSemanticSegmentation

from helpers.models import tiny_native_backbone
from helpers.two_process_evaluation import coloured
from ladder_training import load_image_stream
from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.evaluation.untrained import untrained_copy
from ladder_training.finetuning.detection import load_detector
from ladder_training.finetuning.run import finetune
from ladder_training.models.processor import image_processor

DENSE = {"batch_size": 4, "steps": 6, "warmup_steps": 1, "head_channels": 16, "device": "cpu"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny_native_backbone(seed=1, out_features=["stage1", "stage2", "stage3", "stage4"]).save_pretrained(folder)
    image_processor(32).save_pretrained(folder)
    return folder


def test_transformers_loads_the_classifier_and_scores_as_reported(model, tmp_path):
    train, test = coloured(48, 0), coloured(31, 1)
    settings = {"min_steps": 60, "epochs": 1, "batch_size": 16, "learning_rates": (2e-3,), "crop_fraction": 1.0}
    result = finetune(
        "classification", str(model), train, tmp_path / "out", test_dataset=test, device="cpu", **settings
    )
    assert result.metrics["fine_tuned"]["accuracy"] > 0.9
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert type(classifier).__name__ == "ResNetForImageClassification"
    assert classifier.config.id2label == {0: "0", 1: "1", 2: "2"} and dict(processor.crop_size)["height"] == 32
    with torch.no_grad():
        scores = classifier(**processor(list(test["image"]), return_tensors="pt")).logits
    accuracy = (scores.argmax(1) == torch.tensor(test["label"])).double().mean().item()
    assert accuracy == pytest.approx(result.metrics["fine_tuned"]["accuracy"], abs=0.07)
    record = json.loads((tmp_path / "out" / "finetuned.json").read_text())
    assert record["task"] == "classification" and record["count"] == {"fit": 48, "score": 31}
    assert [path.name for path in (tmp_path / "out" / "evaluation").iterdir()] == [
        "finetune_classification-dataset.json"
    ]
    tuned, before = load_backbone(str(tmp_path / "out")).state_dict(), load_backbone(str(model)).state_dict()
    assert all(not torch.equal(tuned[name], before[name]) for name in before if before[name].ndim > 1)


@pytest.mark.parametrize("family", ["convnext", "swin", "dinov2"])
def test_other_families_start_from_their_backbone(family, tmp_path):
    from helpers.families import tiny_family

    backbone = tiny_family(family)
    backbone.save_pretrained(tmp_path / "model")
    image_processor(32).save_pretrained(tmp_path / "model")
    settings = {"min_steps": 2, "epochs": 1, "batch_size": 8, "learning_rates": (0.0001,)}
    data = coloured(24, 0)
    finetune("classification", str(tmp_path / "model"), data, tmp_path / "out", device="cpu", **settings)
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    state = classifier.state_dict()
    given = {
        name.removeprefix(f"{classifier.base_model_prefix}."): value for name, value in backbone.state_dict().items()
    }
    own = {name.removeprefix(f"{classifier.base_model_prefix}."): value for name, value in state.items()}
    shared = [name for name in given if name in own and given[name].ndim > 1 and "mask_token" not in name]
    assert len(shared) > 5
    # two small steps: near the pretrained weights, not near new random ones
    assert all((own[name] - given[name]).abs().max() < 0.01 for name in shared)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_networks_of_timm_are_fine_tuned_as_classifiers_and_refused_by_segmentation(name, tmp_path, capsys):
    """transformers loads the folder as a classifier; it has no backbone class that could load a UperNet of it again."""
    pytest.importorskip("timm", reason="timm is installed with the dev extra")
    from modeling_ladder.timm_stages import TimmStages, TimmStagesConfig

    torch.manual_seed(2)
    config = TimmStagesConfig(architecture=name)
    backbone = TimmStages(config).eval()
    backbone.save_pretrained(tmp_path / "model")
    image_processor(32).save_pretrained(tmp_path / "model")
    data = coloured(12, 0)
    settings = {"min_steps": 3, "epochs": 1, "batch_size": 8, "learning_rates": (1e-5,), "device": "cpu"}
    result = finetune("classification", str(tmp_path / "model"), data, tmp_path / "out", test_dataset=data, **settings)
    assert f"writing the fine-tuned model to {tmp_path / 'out'} ..." in capsys.readouterr().err.splitlines()
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert type(classifier).__name__ == "TimmWrapperForImageClassification" and classifier.num_labels == 3
    own, given = classifier.state_dict(), backbone.state_dict()
    kernels = [key for key, value in given.items() if value.ndim > 1]
    assert len(kernels) > 9
    # three small steps: near the pretrained weights, not near new random ones
    assert all((own[key] - given[key]).abs().max() < 1e-4 for key in kernels)
    assert any(not torch.equal(own[key], given[key]) for key in kernels)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        scores = classifier(**processor(list(data["image"]), return_tensors="pt")).logits
    assert scores.abs().max() > 0
    accuracy = (scores.argmax(1) == torch.tensor(data["label"])).double().mean().item()
    assert accuracy == pytest.approx(result.metrics["fine_tuned"]["accuracy"], abs=0.09)
    with pytest.raises(UserError, match=r"takes no network of timm.*use evaluate segmentation --head upernet"):
        finetune("segmentation", str(tmp_path / "model"), data, tmp_path / "dense", test_dataset=data, **DENSE)
    assert not (tmp_path / "dense").exists()


def test_transformers_loads_the_segmentation_network(model, tmp_path):
    train, test = coloured(16, 0), coloured(8, 1)
    given = {**DENSE, "label_column": "label_map", "crop_size": 48, "dropout": 0.0}
    result = finetune("segmentation", str(model), train, tmp_path / "out", test_dataset=test, **given)
    network = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert type(network).__name__ == "UperNetForSemanticSegmentation" and network.config.num_labels == 4
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    inputs = processor([test[0]["image"]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    right = total = 0
    with torch.no_grad():
        for row in test:
            found = network(**processor([row["image"]], return_tensors="pt")).logits.argmax(1)[0].numpy()
            truth = np.asarray(row["label_map"])
            right, total = right + (found == truth).sum(), total + truth.size
    assert right / total == pytest.approx(result.metrics["upernet"]["pixel_accuracy"], abs=1e-3)


def test_the_detector_is_loaded_again_and_its_backbone_by_transformers(model, tmp_path):
    train, test = coloured(16, 0), coloured(4, 1)
    given = {**DENSE, "short_sides": (48,), "long_side": 64, "pyramid_channels": 8, "proposals": 30}
    finetune("detection", str(model), train, tmp_path / "out", test_dataset=test, **given)
    detector, classes = load_detector(tmp_path / "out")
    assert classes == ["0", "1", "2"]
    with torch.no_grad():
        found = detector([torch.rand(3, 48, 48)])[0]
    assert set(found) == {"boxes", "labels", "scores"}
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    inside = detector.backbone.body.features.backbone.state_dict()
    assert all(torch.equal(inside[name], value) for name, value in backbone.items())


def test_the_untrained_network_is_fine_tuned_alike_if_asked_for(model, tmp_path, capsys, monkeypatch):
    """Its column holds what fine-tuning a network of random weights gives on its own; the folder is the model's."""
    monkeypatch.chdir(tmp_path)
    train, test = coloured(48, 0), coloured(31, 1)
    settings = {"min_steps": 4, "epochs": 1, "batch_size": 16, "learning_rates": (1e-3,), "device": "cpu"}
    given = {"test_dataset": test, "seed": 3, **settings}
    result = finetune("classification", str(model), train, tmp_path / "both", untrained=True, **given)
    alone = finetune("classification", str(model), train, tmp_path / "alone", **given)
    assert result.metrics == alone.metrics and alone.untrained == {}
    with untrained_copy(str(model), 3) as copy:
        random_weights = finetune("classification", copy, train, tmp_path / "random", **given)
    assert result.untrained == random_weights.metrics and result.untrained != result.metrics
    [file] = (tmp_path / "both" / "evaluation").iterdir()
    assert json.loads(file.read_text())["untrained"]["fine_tuned"]["accuracy"] == pytest.approx(
        random_weights.metrics["fine_tuned"]["accuracy"], abs=1e-6
    )
    written = [AutoModelForImageClassification.from_pretrained(name).state_dict() for name in ("both", "alone")]
    assert all(torch.equal(written[0][name], written[1][name]) for name in written[1])
    title, names, row, *_ = result.table().splitlines()
    assert "fitted on 48 images" in title and "scored on 31" in title
    assert names.split()[:2] == ["accuracy", "untrained"] and names.split()[-1] == "images"
    shown = [f"{one.metrics['fine_tuned']['accuracy']:.4f}" for one in (result, random_weights)]
    assert row.split()[1:3] == shown and row.split()[-1] == "31"


@pytest.mark.parametrize("untrained", [False, True])
def test_the_command_says_how_to_learn_what_pretraining_was_worth(untrained, model, tmp_path, capsys):
    words = ["--model", str(model), "--dataset", "digits", "--output", str(tmp_path / "out"), "--device", "cpu"]
    few = ["--max_steps", "2", "--batch_size", "8", "--label_fraction", "0.05"]
    assert main(["finetune", "classification", *words, *few, *(["--untrained"] if untrained else [])]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any("untrained" in line.split() and line.split()[-1] == "images" for line in said) == untrained
    assert any("--untrained" in line for line in said) == (not untrained)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_heads_of_other_tasks_are_compared_with_random_weights_too(task, model, tmp_path):
    train, test = coloured(8, 0), coloured(4, 1)
    dense = {"segmentation": {"label_column": "label_map", "crop_size": 48}}
    dense["detection"] = {"short_sides": (48,), "long_side": 64, "pyramid_channels": 8, "proposals": 30}
    given = {**DENSE, "steps": 2, **dense[task]}
    result = finetune(task, str(model), train, tmp_path / "out", test_dataset=test, untrained=True, **given)
    assert result.untrained.keys() == result.metrics.keys()
    first = next(iter(result.metrics))
    assert result.untrained[first].keys() == result.metrics[first].keys()


def test_mistakes_are_one_line_and_leave_nothing(model, tmp_path, capsys):
    words = ["finetune", "classification", "--model", str(model), "--dataset", "digits"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for more, said in (
        (["--output", str(tmp_path / "full")], "is not empty and holds no fine-tuned model"),
        (["--output", str(tmp_path / "new"), "--warmup", "2"], "warmup must be at least 0 and less than 1"),
        ([], "option --output is needed"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["finetune", "segmentation", *words[2:], "--output", str(tmp_path / "new"), "--head", "fcn"]) == 2
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="no task 'knn'"):
        finetune("knn", str(model), load_image_stream("digits"), tmp_path / "new")
