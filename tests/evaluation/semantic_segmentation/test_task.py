"""Segmentation: IoU computed by hand, dilation that changes no value, label maps through every step, training."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from ladder_training.errors import UserError
from ladder_training.evaluation import segmentation
from ladder_training.evaluation.backbone import ImageSettings, load_backbone
from ladder_training.evaluation.options import SegmentationOptions, read_recipe
from ladder_training.evaluation.semantic_segmentation.data import (
    LabelledImages,
    TrainingCrops,
    read_label_map,
    resize_labels,
)
from ladder_training.evaluation.semantic_segmentation.dilation import dilate
from ladder_training.evaluation.semantic_segmentation.mean_iou import confusion_matrix, mean_iou_metric, scores_of
from ladder_training.evaluation.semantic_segmentation.model import SegmentationNetwork, segmentation_loss
from ladder_training.evaluation.semantic_segmentation.task import predict


def test_iou_by_hand():
    """Class 0: 2 right of 3 true, 3 predicted: 2/4. Class 1: 2 right, 3 true, 3 predicted: 2/4. 255 is not counted."""
    truth = np.array([[0, 0, 0, 255], [1, 1, 1, 255]])
    found = np.array([[0, 0, 1, 0], [1, 1, 0, 1]])
    confusion = confusion_matrix(found, truth, 3, 255)
    assert confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    scores = scores_of(confusion)
    assert scores["mean_iou"] == pytest.approx(0.5)
    assert scores["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["mean_class_accuracy"] == pytest.approx(2 / 3)
    assert scores["per_class"][:2] == pytest.approx([0.5, 0.5])
    assert math.isnan(scores["per_class"][2])


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = scores_of(confusion_matrix(np.array([0, 0, 2]), np.array([0, 0, 0]), 3, 255))
    assert scores["mean_iou"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["mean_class_accuracy"] == pytest.approx(2 / 3)


def test_iou_equals_sklearn():
    from sklearn.metrics import jaccard_score

    generator = np.random.default_rng(0)
    truth, found = generator.integers(0, 5, (2, 40, 50))
    expected = jaccard_score(truth.ravel(), found.ravel(), average="macro")
    assert scores_of(confusion_matrix(found, truth, 5, 255))["mean_iou"] == pytest.approx(expected)


def test_the_metric_is_one_of_evaluate_and_adds_up_pixels_not_images():
    import evaluate

    metric = mean_iou_metric(2)
    assert isinstance(metric, evaluate.Metric)
    small, large = np.zeros((1, 2), int), np.zeros((10, 10), int)
    metric.add(prediction=small + 1, reference=small)
    metric.add_batch(predictions=[large], references=[large])
    assert metric.compute()["per_class"] == pytest.approx([100 / 102, 0.0])
    assert metric.compute(predictions=[large], references=[large])["mean_iou"] == 1.0


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="5 classes"):
        confusion_matrix(np.array([0]), np.array([7]), 5, 255)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(np.zeros(3), np.zeros(4), 5, 255)


def make_backbone(layer_type, depths=(2, 2, 2, 2)):
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24, 32, 48],
        depths=list(depths),
        layer_type=layer_type,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    backbone = ResNetBackbone(config)
    for module in backbone.modules():  # running statistics of their own, so that eval mode is not the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return backbone.eval()


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize(("output_stride", "changed"), [(8, ["stage3", "stage4"]), (16, ["stage4"]), (32, [])])
@pytest.mark.parametrize("size", [(128, 128), (97, 131)])
def test_dilation_keeps_every_value_at_the_old_places(layer_type, output_stride, changed, size):
    backbone = make_backbone(layer_type)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        before = backbone(image).feature_maps
        assert dilate(backbone, output_stride) == changed
        after = backbone(image).feature_maps
    for stride, old, new in zip((4, 8, 16, 32), before, after, strict=True):
        factor = max(1, stride // output_stride)
        assert new.shape[-1] == math.ceil(size[1] / min(stride, output_stride))
        torch.testing.assert_close(new[..., ::factor, ::factor], old, rtol=1e-4, atol=1e-5)
        if factor == 1:
            assert torch.equal(new, old)
    assert all(torch.equal(weights[name], value) for name, value in backbone.state_dict().items())
    make_backbone(layer_type).load_state_dict(backbone.state_dict(), strict=True)


def test_dilation_is_that_of_torchvision():
    from torchvision.models import resnet50
    from transformers import ResNetBackbone, ResNetConfig

    with torch.device("meta"):
        ours = ResNetBackbone(ResNetConfig())
        theirs = resnet50(replace_stride_with_dilation=[False, True, True])
    dilate(ours, 8)
    for stage, layer in zip(
        ours.encoder.stages, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True
    ):
        for block, reference in zip(stage.layers, layer, strict=True):
            for place, name in enumerate(("conv1", "conv2", "conv3")):
                mine, expected = block.layer[place].convolution, getattr(reference, name)
                assert (mine.stride, mine.dilation, mine.padding) == (
                    expected.stride,
                    expected.dilation,
                    expected.padding,
                )


def test_other_architectures_are_named():
    from transformers import ConvNextBackbone, ConvNextConfig

    backbone = ConvNextBackbone(ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1]))
    with pytest.raises(UserError, match="convnext: use head: upernet"):
        dilate(backbone, 8)


def discs(count=6, seed=0, ignore_border=True):
    """A red disc (class 1) or a green square (class 2) on grey noise; a border of it is ignored."""
    from datasets import Dataset, Features, Image

    generator = np.random.default_rng(seed)
    images, labels = [], []
    rows, columns = np.mgrid[:72, :90]
    for index in range(count):
        image = generator.integers(0, 70, (72, 90, 3), dtype=np.uint8)
        y, x, kind = int(generator.integers(20, 50)), int(generator.integers(20, 70)), 1 + index % 2
        distance = np.hypot(rows - y, columns - x) if kind == 1 else np.maximum(abs(rows - y), abs(columns - x))
        label = np.where(distance < 14, kind, 0).astype(np.uint8)
        image[distance < 14, kind - 1] = 240
        if ignore_border:
            label[(distance >= 14) & (distance < 16)] = 255
        images.append(image)
        labels.append(PILImage.fromarray(label))
    return Dataset.from_dict(
        {"image": images, "label": labels}, features=Features({"image": Image(), "label": Image()})
    )


def test_palette_label_maps_give_indices_not_colours():
    label = PILImage.fromarray(np.array([[0, 1], [2, 255]], np.uint8)).convert("P")
    label.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [255] * 759)
    buffer = io.BytesIO()
    PILImage.fromarray(np.array([[0, 1], [2, 255]], np.uint8), mode="L").save(buffer, "PNG")
    assert read_label_map({"bytes": buffer.getvalue()}, "").tolist() == [[0, 1], [2, 255]]
    label = PILImage.new("P", (2, 2))
    label.putpalette([9, 9, 9, 128, 0, 0, 0, 128, 0])
    label.putdata([0, 1, 2, 1])
    buffer = io.BytesIO()
    label.save(buffer, "PNG")
    assert read_label_map({"bytes": buffer.getvalue()}, "").tolist() == [[0, 1], [2, 1]]
    with pytest.raises(UserError, match="mode RGB"):
        read_label_map(PILImage.new("RGB", (2, 2)), "image 0")


def test_label_maps_are_resized_without_mixing_classes():
    label = np.kron(np.array([[0, 10], [255, 20]], np.uint8), np.ones((7, 9), np.uint8))
    for height, width in ((5, 5), (40, 13), (28, 36)):
        assert set(np.unique(resize_labels(label, height, width))) <= {0, 10, 20, 255}
    doubled = resize_labels(label, 28, 36)
    assert np.array_equal(doubled, np.kron(label, np.ones((2, 2), np.uint8)))


def test_crops_move_image_and_label_together():
    """Red stays class 1 and green class 2 through scale, crop, flip and padding."""
    images = LabelledImages(discs(4), "image", "label", "train")
    settings = ImageSettings(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    crops = TrainingCrops(images, SegmentationOptions(crop_size=64, scale_range=(0.5, 2.0)), settings)
    seen = set()
    for index in range(4):
        for seed in range(8):
            pixels, labels = crops[(index, seed)]
            assert pixels.shape == (3, 64, 64)
            for kind in (1, 2):
                inside = pixels[kind - 1][labels == kind]
                if len(inside) > 30:
                    assert (inside > 0.6).float().mean() > 0.85  # a shrunk edge mixes colours
                    seen.add(kind)
            assert (pixels[:2][:, labels == 0] < 0.6).float().mean() > 0.97
            assert torch.equal(pixels, crops[(index, seed)][0])
    assert seen == {1, 2}
    assert any((crops[(0, seed)][1] == 255).float().mean() > 0.3 for seed in range(20))  # padded where small


def test_loss_by_hand_and_without_labelled_pixels():
    scores = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])
    labels = torch.tensor([[[0, 255]]])
    assert segmentation_loss((scores, None), labels, 255).item() == pytest.approx(math.log(2))
    both = segmentation_loss((scores, scores), labels, 255).item()
    assert both == pytest.approx(1.4 * math.log(2))
    assert segmentation_loss((scores, scores), torch.full((1, 1, 2), 255), 255).item() == 0.0


@pytest.mark.parametrize("head", ["fcn", "upernet"])
def test_heads_have_the_size_they_promise(head):
    options = SegmentationOptions(head=head, head_channels=8)
    network = SegmentationNetwork(load_backbone(make_backbone("basic", (1, 1, 1, 1))), 5, options)
    scores, extra = network.train()(torch.randn(2, 3, 64, 96))
    assert scores.shape == ((2, 5, 8, 12) if head == "fcn" else (2, 5, 16, 24))
    assert extra.shape[:2] == (2, 5)
    assert network.eval()(torch.randn(1, 3, 64, 96))[1] is None
    image = np.zeros((50, 70, 3), np.uint8)
    assert predict(network, image, options, ImageSettings(), "cpu").shape == (50, 70)


SMALL = {"head_channels": 8, "crop_size": 64, "batch_size": 4, "warmup_steps": 5}


@pytest.mark.parametrize("head", ["fcn", "upernet"])
def test_task_learns_discs_and_writes_its_file(head, tmp_path):
    backbone = make_backbone("basic", (1, 1, 1, 1))
    data = {"train": discs(8), "test": discs(4, seed=1)}
    settings = {"steps": 50, "head": head, "learning_rate": 0.05, **SMALL}
    result = segmentation(backbone, data, output=tmp_path, device="cpu", **settings)
    saved = json.loads(result.path.read_text())
    assert saved["metrics"][head]["mean_iou"] > saved["metrics"]["constant"]["mean_iou"] + 0.15
    assert saved["metrics"]["constant"]["mean_iou"] < 0.34
    assert saved["protocol"]["num_classes"] == 3
    assert len(saved["per_class"]["iou"]) == 3
    assert saved["count"] == {"fit": 8, "score": 4}
    assert result.protocol["last_loss"] < 0.6 * result.protocol["first_loss"]


def test_a_frozen_backbone_is_not_changed_and_runs_repeat():
    backbone = make_backbone("basic", (1, 1, 1, 1))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    data = {"train": discs(4), "test": discs(2, seed=1)}
    runs = [
        segmentation(backbone, data, device="cpu", steps=4, freeze_backbone=True, stages=("stage2", "stage3"), **SMALL)
        for _ in range(2)
    ]
    assert runs[0].protocol["last_loss"] == runs[1].protocol["last_loss"]
    assert runs[0].metrics == runs[1].metrics
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_the_small_batches_of_frozen_and_trained_backbones_differ():
    """`freeze_backbone` really freezes: only the head's parameters get a gradient."""
    features = load_backbone(make_backbone("basic", (1, 1, 1, 1)))
    network = SegmentationNetwork(features, 3, SegmentationOptions(freeze_backbone=True, **SMALL)).train()
    loss = segmentation_loss(network(torch.randn(2, 3, 64, 64)), torch.zeros(2, 64, 64, dtype=torch.long), 255)
    loss.backward()
    assert all(parameter.grad is None for parameter in network.body.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())


def other_size():
    data = discs(2)
    from datasets import Dataset

    rows = [{"image": row["image"].resize((50, 50)), "label": row["label"]} for row in data]
    return Dataset.from_list(rows, features=data.features)


def more_classes():
    data = discs(2)
    from datasets import Dataset

    rows = [{"image": row["image"], "label": PILImage.fromarray(np.full((72, 90), 9, np.uint8))} for row in data]
    return Dataset.from_list(rows, features=data.features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (discs(2).remove_columns("label"), discs(2)), "no column of label maps among image"),
        (lambda: (discs(2), discs(2).remove_columns("label")), "'label' does not exist"),
        (lambda: (other_size(), discs(2)), "is 50 x 50 pixels, its label map 90 x 72"),
        (lambda: (discs(2), more_classes()), "class 9 is not one of the 3 classes that are fitted on"),
        (lambda: ({"train": discs(2)}, None), "has one split, train, and 2 images are too few"),
        (lambda: (discs(2).to_iterable_dataset(), discs(2)), "do not stream"),
    ],
)
def test_user_errors_are_one_line_and_write_nothing(tmp_path, make, message):
    train, test = make()
    backbone = make_backbone("basic", (1, 1, 1, 1))
    with pytest.raises(UserError, match=message) as error:
        segmentation(backbone, train, test_dataset=test, output=tmp_path, device="cpu", steps=1, **SMALL)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["voc12aug", "voc12aug_frozen", "ade20k_upernet", "small"])
def test_recipes_are_valid(name):
    SegmentationOptions(**read_recipe("segmentation", name))


def test_a_run_in_another_precision_may_have_gone_before() -> None:
    """accelerate keeps the precision of a process, and `ladder compare` trains in bfloat16 before it evaluates."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from ladder_training.evaluation.tuning import make_accelerator

    AcceleratorState._reset_state()
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"
    accelerator = make_accelerator("cpu")
    assert accelerator.mixed_precision == "no"
    assert not accelerator.native_amp
