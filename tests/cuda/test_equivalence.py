"""The same numbers on the GPU as on the CPU: losses, gradients, views, votes, features."""

import copy
from collections.abc import Callable

import pytest
import torch

from helpers.models import tiny_native_backbone, tiny_resnet
from helpers.pictures import natural_image
from helpers.training import make_model
from ladder_training.evaluation.image_classification.linear_probe import fit_probe
from ladder_training.evaluation.options import LinearOptions
from ladder_training.models.neighbour_votes import knn_votes
from ladder_training.trainer.lars import Lars
from ladder_training.views.device import DeviceViews
from ladder_training.views.two_views import TwoViewTransform

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("exact")]


@pytest.mark.parametrize("method", ["ladder", "byol"])
def test_loss_gradients_and_three_steps(method: str, view_pairs: Callable, device: torch.device) -> None:
    fields = (
        {} if method == "ladder" else {"level_names": ["stage4"], "level_losses": ["global"], "level_weights": [1.0]}
    )
    models = [make_model(tiny_resnet(), **fields).train()]
    models.append(copy.deepcopy(models[0]).to(device))
    optimizers = [Lars([p for p in model.parameters() if p.requires_grad], lr=0.2) for model in models]
    for step in range(3):
        batch = view_pairs(batch=8, size=64, seed=step)
        losses = []
        for model, optimizer, place in zip(models, optimizers, ("cpu", device), strict=True):
            loss = model(**{name: value.to(place) for name, value in batch.items()}).loss
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=2e-4), step
        ours, theirs = (dict(model.named_parameters()) for model in models)
        for name, parameter in ours.items():
            if parameter.grad is not None:
                scale = parameter.grad.abs().max().item() + 1e-6
                torch.testing.assert_close(theirs[name].grad.cpu() / scale, parameter.grad / scale, rtol=0, atol=5e-2)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.step()
            model.update_target(0.9)
        models[1].load_state_dict(models[0].state_dict())  # each step is compared alone: rounding grows


def test_colours_made_on_the_device(device: torch.device) -> None:
    transform = TwoViewTransform(64, device_mode=True)
    examples = [transform(natural_image(90, 120, seed=n), seed=n) for n in range(6)]
    batch = {name: torch.stack([torch.as_tensor(example[name]) for example in examples]) for name in examples[0]}
    finish = DeviceViews(transform)
    on_cpu = finish(dict(batch))["pixel_values"]
    on_device = finish({name: value.to(device) for name, value in batch.items()})["pixel_values"]
    assert on_device.device.type == device.type
    torch.testing.assert_close(on_device.cpu(), on_cpu, rtol=0, atol=2e-3)


def test_votes_and_the_linear_probe(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 5
    features = torch.randn(600, 16, generator=generator) + 3 * torch.nn.functional.one_hot(labels, 16)
    votes = knn_votes(features, labels, features[:100], k=7)
    torch.testing.assert_close(
        knn_votes(features, labels, features[:100], k=7, device=device).cpu(), votes, rtol=1e-3, atol=1e-3
    )
    options = LinearOptions(epochs=5)
    probes = [fit_probe({"a": features}, labels, 5, options, seed=0, device=place) for place in ("cpu", device)]
    assert probes[0].rates == probes[1].rates
    scores = [probe.scores({"a": features}, place)["a"] for probe, place in zip(probes, ("cpu", device), strict=True)]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-2, atol=1e-2)


def test_features_of_every_stage(device: torch.device) -> None:
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = backbone(pixels).feature_maps
        found = copy.deepcopy(backbone).to(device, memory_format=torch.channels_last)(pixels.to(device)).feature_maps
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-3)
