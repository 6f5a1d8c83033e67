"""The models on the transformers API: outputs, memory format, saving and loading, auto classes, other backbones."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    ConvNextConfig,
    Dinov2Config,
    ResNetBackbone,
    ResNetForImageClassification,
    ResNetModel,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from modeling_ladder import (
    LadderSiameseBackbone,
    LadderSiameseConfig,
    LadderSiameseForImageClassification,
    LadderSiameseForPreTraining,
    LadderSiameseModel,
    load_native_backbone,
    native_backbone,
    save_native_backbone,
)

HEADS = {"projection_hidden_size": 32, "projection_size": 16, "local_grid_size": 3}


@pytest.fixture
def model(tiny_backbone) -> LadderSiameseForPreTraining:
    """A pretraining model whose target and statistics have moved away from the online network."""
    torch.manual_seed(0)
    model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=tiny_backbone, **HEADS))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = 0.05 * torch.randn_like(tensor)
                tensor.add_(noise.abs() if "var" in name else noise)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_outputs_of_the_plain_model(model, images) -> None:
    plain = LadderSiameseModel(model.config).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    output = plain(images, output_hidden_states=True)
    assert [tuple(m.shape) for m in output.hidden_states] == [
        (3, 8, 16, 16),
        (3, 12, 8, 8),
        (3, 16, 4, 4),
        (3, 20, 2, 2),
    ]
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.flatten(2).mean(2))
    assert plain(images).hidden_states is None
    assert isinstance(plain(images, return_dict=False), tuple)
    assert list(plain.feature_maps(images)) == ["stage1", "stage2", "stage3", "stage4"]


def test_target_starts_as_a_copy_and_does_not_train(tiny_backbone) -> None:
    model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=tiny_backbone, **HEADS))
    assert equal_weights(model.backbone, model.target.backbone)
    assert equal_weights(model.projectors, model.target.projectors)
    assert not any(p.requires_grad for p in model.target.parameters())
    shared = {p.data_ptr() for p in model.target.parameters()} & {p.data_ptr() for p in model.backbone.parameters()}
    assert not shared


def test_heads_are_named_by_stage_and_kind_and_never_by_index(model) -> None:
    heads = [name for name in model.state_dict() if "projectors" in name or "predictors" in name]
    assert heads
    assert all(not any(part.isdigit() for part in name.split(".")) for name in heads)
    assert "projectors.stage1.local.output.weight" in heads
    assert "target.projectors.stage4.global.hidden.bias" in heads


def test_save_and_load_keep_weights_and_the_frozen_target(model, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded, info = LadderSiameseForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert equal_weights(model, loaded)
    assert not any(p.requires_grad for p in loaded.target.parameters())
    assert all(p.requires_grad for p in loaded.backbone.parameters())
    assert not loaded.training


def test_heads_without_weight_stay_frozen_after_loading(tiny_backbone, tmp_path) -> None:
    config = LadderSiameseConfig(backbone_config=tiny_backbone, level_weights=[0, 1, 0, 1], **HEADS)
    LadderSiameseForPreTraining(config).save_pretrained(tmp_path)
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path)
    trained = {name.split(".")[1] for name, p in loaded.projectors.named_parameters(prefix="p") if p.requires_grad}
    assert trained == {"stage2", "stage4"}


@pytest.mark.parametrize("lost", ["target.", "target.projectors.stage4", "target.backbone.embedder"])
def test_a_checkpoint_without_a_whole_target_gets_a_copy_of_the_online_network(model, tmp_path, lost) -> None:
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(lost)}, file, metadata={"format": "pt"})
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path)
    assert equal_weights(loaded.backbone, model.backbone)
    assert equal_weights(loaded.target.backbone, model.backbone)
    assert equal_weights(loaded.target.projectors, model.projectors)
    assert not any(p.requires_grad for p in loaded.target.parameters())


def test_every_buffer_is_saved(model) -> None:
    """A buffer that is not saved comes back from `from_pretrained` with whatever was in memory."""
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys()


def test_a_checkpoint_without_its_predictors_is_refused(model, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    left = {k: v for k, v in load_file(file).items() if not k.startswith("predictors.")}
    save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack the tensor 'predictors\.stage1"):
        LadderSiameseForPreTraining.from_pretrained(tmp_path)


def test_levels_added_to_a_checkpoint_get_fresh_heads_and_no_memory_rubbish(tiny_backbone, tmp_path) -> None:
    byol = LadderSiameseForPreTraining(LadderSiameseConfig.byol(backbone_config=tiny_backbone, **HEADS))
    byol.save_pretrained(tmp_path)
    stages = byol.config.stages
    levels = {"level_names": stages, "level_losses": ["both"] * 4, "level_weights": [1] * 4}
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path, **levels)
    assert equal_weights(loaded.backbone, byol.backbone)
    assert equal_weights(loaded.predictors["stage4"]["global"], byol.predictors["stage4"]["global"])
    assert equal_weights(loaded.projectors, loaded.target.projectors)
    for name, parameter in loaded.named_parameters():
        if not name.startswith(("projectors.", "predictors.")):
            continue
        if "normalization" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        elif parameter.ndim > 1:
            bound = parameter.shape[1] ** -0.5
            assert 0.8 * bound < parameter.abs().max() <= bound, name


def test_a_native_backbone_gets_fresh_heads_of_ordinary_size(model, tmp_path) -> None:
    save_native_backbone(model, tmp_path)
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path, projection_hidden_size=64)
    weight = loaded.projectors["stage4"]["global"].hidden.weight
    assert weight.abs().max() <= 20**-0.5
    assert weight.std().item() == pytest.approx((1 / (3 * 20)) ** 0.5, rel=0.15)
    norm = loaded.predictors["stage1"]["local"].normalization
    assert torch.equal(norm.weight, torch.ones(64))
    assert torch.equal(norm.running_var, torch.ones(64))


def test_one_model_loads_from_ladder_pretraining_and_native_folders(model, images, tmp_path) -> None:
    pretraining, ladder, native = tmp_path / "pretraining", tmp_path / "ladder", tmp_path / "native"
    model.save_pretrained(pretraining)
    LadderSiameseModel.from_pretrained(pretraining).save_pretrained(ladder)
    save_native_backbone(model, native)
    expected = model.feature_maps(images)
    for folder in (pretraining, ladder, native):
        loaded = LadderSiameseModel.from_pretrained(folder)
        assert equal_weights(loaded.backbone, model.backbone)
        for stage, stage_map in loaded.feature_maps(images).items():
            assert torch.equal(stage_map, expected[stage])
    continued = LadderSiameseForPreTraining.from_pretrained(native, projection_size=8)
    assert continued.config.projection_size == 8
    assert equal_weights(continued.target.backbone, model.backbone)


@pytest.mark.parametrize("wrapper", [ResNetBackbone, ResNetModel, ResNetForImageClassification])
def test_native_resnets_of_every_class_load(model, tmp_path, wrapper) -> None:
    save_native_backbone(model, tmp_path / "native")
    wrapper.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "again")
    assert equal_weights(LadderSiameseModel.from_pretrained(tmp_path / "again").backbone, model.backbone)


def test_the_published_backbone_is_native_and_equal(model, images, tmp_path) -> None:
    save_native_backbone(model, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == "resnet"
    assert config.out_features == ["stage1", "stage2", "stage3", "stage4"]
    assert config.architectures == ["ResNetBackbone"]
    published = ResNetBackbone.from_pretrained(tmp_path)
    for stage_map, expected in zip(published(images).feature_maps, model.feature_maps(images).values(), strict=True):
        torch.testing.assert_close(stage_map, expected, rtol=1e-5, atol=1e-5)
    pooled = AutoModel.from_pretrained(tmp_path)(images).pooler_output.flatten(1)
    torch.testing.assert_close(pooled, model.feature_maps(images)["stage4"].mean((2, 3)), rtol=1e-5, atol=1e-5)


def test_auto_classes(model, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), LadderSiameseModel)
    assert isinstance(AutoModelForPreTraining.from_pretrained(tmp_path), LadderSiameseForPreTraining)
    assert isinstance(AutoModelForImageClassification.from_pretrained(tmp_path), LadderSiameseForImageClassification)
    assert isinstance(AutoBackbone.from_config(model.config), LadderSiameseBackbone)


def test_backbone_gives_all_stages_unless_told_otherwise(model, images, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    backbone = LadderSiameseBackbone.from_pretrained(tmp_path)
    assert backbone.channels == [8, 12, 16, 20]
    for got, expected in zip(backbone(images).feature_maps, model.feature_maps(images).values(), strict=True):
        assert torch.equal(got, expected)
    two = LadderSiameseBackbone.from_pretrained(tmp_path, out_features=["stage2", "stage4"])
    assert two.channels == [12, 20]
    assert [m.shape[1] for m in two(images).feature_maps] == [12, 20]
    stem = LadderSiameseBackbone(
        LadderSiameseConfig(backbone_config=model.config.backbone_config, out_features=["stem"])
    )
    assert [m.shape[1] for m in stem(images).feature_maps] == [8]


def test_backbone_in_upernet(model, images) -> None:
    config = UperNetConfig(backbone_config=model.config, hidden_size=16, auxiliary_channels=8, num_labels=5)
    segmenter = UperNetForSemanticSegmentation(config)
    assert segmenter(images).logits.shape == (3, 5, 64, 64)


def test_classifier_reads_the_chosen_stages(model, images, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    classifier = LadderSiameseForImageClassification.from_pretrained(
        tmp_path, num_labels=7, classifier_stages=["stage2", "stage4"]
    )
    labels = torch.tensor([0, 3, 6])
    output = classifier(images, labels=labels)
    maps = model.feature_maps(images)
    pooled = torch.cat([maps["stage2"].mean((2, 3)), maps["stage4"].mean((2, 3))], dim=1)
    expected = pooled @ classifier.classifier.weight.T + classifier.classifier.bias
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(expected, labels))
    classifier.save_pretrained(tmp_path / "classifier")
    again = LadderSiameseForImageClassification.from_pretrained(tmp_path / "classifier")
    assert equal_weights(classifier, again)


def test_channels_last_of_weights_and_inputs_also_after_loading(model, images, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    save_native_backbone(model, tmp_path / "native")
    fresh = LadderSiameseModel(model.config)
    loaded = [
        LadderSiameseForPreTraining.from_pretrained(tmp_path),
        LadderSiameseModel.from_pretrained(tmp_path / "native"),
    ]
    for each in (model, fresh, *loaded):
        for weight in [m.weight for m in each.modules() if isinstance(m, torch.nn.Conv2d)]:
            assert weight.is_contiguous(memory_format=torch.channels_last)
    assert fresh.feature_maps(images)["stage2"].is_contiguous(memory_format=torch.channels_last)


def test_target_stays_float32_in_half_precision_models(model, view_pairs, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    half = LadderSiameseForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.backbone.embedder.embedder.convolution.weight.dtype == torch.bfloat16
    for each in (half, half.to(torch.bfloat16), half.half()):
        assert {p.dtype for p in each.target.parameters()} == {torch.float32}
    half.to(torch.bfloat16).train()
    output = half(**view_pairs())
    assert output.loss.dtype == torch.float32
    assert torch.isfinite(output.loss)
    # A step far below bfloat16's resolution still moves the target.
    name, before = next(iter([(n, p.clone()) for n, p in half.target.named_parameters()]))
    half.update_target(1 - 2**-12)
    assert not torch.equal(dict(half.target.named_parameters())[name], before)


@pytest.mark.parametrize("where", ["the call", "the backbone's config.json", "the config"])
def test_target_is_float32_beside_a_backbone_in_half_precision(model, tmp_path, where) -> None:
    folder = save_native_backbone(model.bfloat16() if where.endswith("json") else model, tmp_path)
    if where == "the config":
        backbone = model.config.backbone_config.to_dict() | {"dtype": "bfloat16"}
        half = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone))
    else:
        half = LadderSiameseForPreTraining.from_pretrained(
            folder, **({"dtype": torch.bfloat16} if where == "the call" else {})
        )
    assert {p.dtype for p in half.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.target.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in half.target.parameters())
    before = next(half.target.backbone.parameters()).clone()
    with torch.no_grad():
        next(half.backbone.parameters()).add_(1)
    half.update_target(1 - 2**-12)  # far below bfloat16's resolution
    assert not torch.equal(next(half.target.backbone.parameters()), before)


def test_target_weights_survive_a_cast_to_half_precision_unrounded(model) -> None:
    before = {name: tensor.clone() for name, tensor in model.target.state_dict().items()}
    model.bfloat16()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.target.state_dict().items())


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_update_target_by_hand(model, momentum) -> None:
    online = {n: p.detach().double() for n, p in model.named_parameters() if not n.startswith(("target", "predictors"))}
    target = {n.removeprefix("target."): p.double() for n, p in model.named_parameters() if n.startswith("target.")}
    buffers = {n: b.clone() for n, b in model.target.named_buffers()}
    assert online.keys() == target.keys()
    model.update_target(momentum)
    for name, parameter in model.target.named_parameters():
        expected = momentum * target[name] + (1 - momentum) * online[name]
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(b, buffers[n]) for n, b in model.target.named_buffers())
    if momentum == 0:
        assert equal_weights(
            model.projectors["stage1"]["local"].hidden, model.target.projectors["stage1"]["local"].hidden
        )


def test_update_target_refuses_a_momentum_out_of_range(model) -> None:
    with pytest.raises(ValueError, match="momentum"):
        model.update_target(1.5)


def test_missing_and_misshapen_inputs_are_named(model, view_pairs) -> None:
    batch = view_pairs()
    for name in ("view_boxes", "view_flips"):
        with pytest.raises(ValueError, match=name):
            model(**{**batch, name: None})
    with pytest.raises(ValueError, match="pixel_values"):
        model(batch["pixel_values"][:, 0], batch["view_boxes"], batch["view_flips"])
    with pytest.raises(ValueError, match="view_boxes"):
        model(batch["pixel_values"], batch["view_boxes"][:, 0], batch["view_flips"])


def test_feature_matching_and_global_levels_need_no_boxes(tiny_backbone, view_pairs) -> None:
    views = view_pairs(size=64)["pixel_values"]
    feature = LadderSiameseConfig(backbone_config=tiny_backbone, local_matching="feature", **HEADS)
    assert torch.isfinite(LadderSiameseForPreTraining(feature)(views).loss)
    byol = LadderSiameseConfig.byol(backbone_config=tiny_backbone, **HEADS)
    assert torch.isfinite(LadderSiameseForPreTraining(byol)(views).loss)


def test_each_heads_gradient_comes_from_its_own_level_only(tiny_backbone, view_pairs) -> None:
    config = LadderSiameseConfig(backbone_config=tiny_backbone, level_weights=[0, 0, 3, 0], **HEADS)
    model = LadderSiameseForPreTraining(config).train()
    model(**view_pairs()).loss.backward()
    with_gradient = {n.split(".")[1] for n, p in model.named_parameters() if n.startswith("pr") and p.grad is not None}
    assert with_gradient == {"stage3"}
    assert all(p.grad is None for p in model.backbone.encoder.stages[3].parameters())
    assert all(p.grad is not None for p in model.backbone.encoder.stages[2].parameters())


def test_return_loss_false_gives_levels_only(model, view_pairs) -> None:
    output = model(**view_pairs(), return_loss=False)
    assert output.loss is None
    kinds = ("local", "global")
    assert set(output.level_losses) == {f"{stage}.{kind}" for stage in model.config.stages for kind in kinds}


@pytest.mark.parametrize(
    "backbone",
    [
        ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=2),
        Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, patch_size=16, image_size=64),
    ],
    ids=["convnext", "swin", "dinov2"],
)
def test_other_backbones_train_save_and_load(backbone, view_pairs, images, tmp_path) -> None:
    model = LadderSiameseForPreTraining(LadderSiameseConfig(backbone_config=backbone, **HEADS)).train()
    model(**view_pairs(size=64)).loss.backward()
    model.eval().save_pretrained(tmp_path / "full")
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path / "full")
    assert equal_weights(model, loaded)
    save_native_backbone(model, tmp_path / "native")
    again = load_native_backbone(tmp_path / "native")
    assert equal_weights(again, model.backbone)
    assert len(again(images).feature_maps) == 4


def test_native_copy_leaves_the_model_alone(model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    native = native_backbone(model)
    with torch.no_grad():
        for parameter in native.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("batch_size", [4, 16])
def test_forward_under_meta_and_compile_graph(tiny_backbone, view_pairs, batch_size) -> None:
    """The whole step is one graph without breaks, and shapes are right where no memory is taken.

    Points of 16 images and more are mapped by a convolution, but not in a graph.
    """
    config = LadderSiameseConfig(backbone_config=tiny_backbone, **HEADS)
    with torch.device("meta"):
        model = LadderSiameseForPreTraining(config)
        batch = {name: torch.empty_like(value, device="meta") for name, value in view_pairs(batch_size).items()}
        assert model(**batch).loss.shape == ()
    explained = torch._dynamo.explain(LadderSiameseForPreTraining(config).train())(**view_pairs(batch_size))
    # torch 2.6 cannot trace torch.amp.is_autocast_available, and goes on outside the graph.
    old = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7)
    assert old or explained.graph_break_count == 0
