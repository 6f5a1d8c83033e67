"""One training step of this package and of its peers, on the same batches; for step.py, end_to_end.py and scaling.py.

lightly and byol-pytorch run as their documentation shows, on torchvision's ResNet of the same shape.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, ResNetConfig

from ladder_training.trainer.lars import Lars
from modeling_ladder import LadderSiameseConfig, LadderSiameseForPreTraining

Batch = dict[str, Tensor]
Step = Callable[[Batch], Any]
STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {},
    # The study's network (study/imagenette96.yaml), so small that the input limits a processor, as it may a GPU.
    "small": {"layer_type": "basic", "depths": [1, 1, 1, 1], "hidden_sizes": [32, 64, 128, 256], "embedding_size": 32},
}


def resnet(name: str) -> ResNetConfig:
    """transformers' configuration of a ResNet, with all stages."""
    return ResNetConfig(**RESNETS[name], out_features=STAGES)


def make_batch(batch: int, size: int, device: str = "cpu") -> Batch:
    """Random view pairs with boxes as random resized crops give them."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(batch, 2, 2, generator=generator) * 0.4
    high = 0.6 + torch.rand(batch, 2, 2, generator=generator) * 0.4
    made = {
        "pixel_values": torch.randn(batch, 2, 3, size, size, generator=generator),
        "view_boxes": torch.cat([low, high], dim=-1),
        "view_flips": torch.rand(batch, 2, generator=generator) < 0.5,
    }
    return {name: value.to(device) for name, value in made.items()}


def mixed_precision(device: str) -> Any:
    """bfloat16 on a GPU, nothing on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else contextlib.nullcontext()


def bare(name: str, device: str = "cpu") -> Step:
    """The backbone's convolutions and nothing else: what no BYOL step can avoid.

    In channels-last: forward and backward for two views, and a forward without gradient for the target's two.
    """
    online = AutoBackbone.from_config(resnet(name)).to(device=device, memory_format=torch.channels_last).train()
    target = copy.deepcopy(online)

    def step(batch: Batch) -> None:
        views = [view.contiguous(memory_format=torch.channels_last) for view in batch["pixel_values"].unbind(1)]
        with mixed_precision(device):
            loss = sum(online(view).feature_maps[-1].float().mean() for view in views)
        loss.backward()
        with torch.no_grad(), mixed_precision(device):
            for view in views:
                target(view)
        online.zero_grad()

    return step


def ours(config: LadderSiameseConfig, device: str = "cpu") -> Step:
    """This package's step: loss, LARS, target update."""
    model = LadderSiameseForPreTraining(config).train().to(device)
    optimizer = Lars([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=1e-6)

    def step(batch: Batch) -> None:
        with mixed_precision(device):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.99)

    return step


def byol(name: str, device: str = "cpu") -> Step:
    """This package's BYOL."""
    return ours(LadderSiameseConfig.byol(backbone_config=resnet(name), **_head_sizes(name)), device)


def ladder(name: str, device: str = "cpu") -> Step:
    """This package's Ladder with four levels."""
    return ours(LadderSiameseConfig(backbone_config=resnet(name), **_head_sizes(name)), device)


def _head_sizes(name: str) -> dict[str, int]:
    """BYOL's own, or the study's for its small network."""
    return {"projection_hidden_size": 512, "projection_size": 128} if name == "small" else {}


class _Pooled(nn.Module):
    """A backbone of transformers as lightly takes one: images to (batch, channels, 1, 1)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = AutoBackbone.from_config(resnet(name))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.backbone(images).feature_maps[-1]
        return maps.mean(dim=(2, 3), keepdim=True)


def lightly_byol(name: str, device: str = "cpu", lars: bool = False) -> Step:
    """BYOL from lightly's documentation (lightly-ai.github.io, examples, byol), heads as wide as ours.

    Args:
        name: Of the backbone.
        device: Where it trains.
        lars: Whether lightly's LARS takes the place of the example's SGD, as in its ImageNet benchmark.
    """
    import torchvision
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.utils.lars import LARS

    if name == "small":
        backbone, width = cast(nn.Module, _Pooled(name)), RESNETS[name]["hidden_sizes"][-1]
    else:
        network = getattr(torchvision.models, name)()
        backbone, width = nn.Sequential(*list(network.children())[:-1]), network.fc.in_features
    sizes = _head_sizes(name)
    hidden, size = sizes.get("projection_hidden_size", 4096), sizes.get("projection_size", 256)
    projection, prediction = BYOLProjectionHead(width, hidden, size), BYOLPredictionHead(size, hidden, size)
    momentum_backbone, momentum_projection = copy.deepcopy(backbone), copy.deepcopy(projection)
    deactivate_requires_grad(momentum_backbone)
    deactivate_requires_grad(momentum_projection)
    nn.ModuleList([momentum_backbone, momentum_projection]).to(device)
    modules = nn.ModuleList([backbone, projection, prediction]).to(device)
    criterion = NegativeCosineSimilarity()
    optimizer = (
        LARS(modules.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-6)
        if lars
        else torch.optim.SGD(modules.parameters(), lr=0.06)
    )

    def online(x: Tensor) -> Tensor:
        return prediction(projection(backbone(x).flatten(start_dim=1)))

    def target(x: Tensor) -> Tensor:
        return momentum_projection(momentum_backbone(x).flatten(start_dim=1)).detach()

    def step(batch: Batch) -> None:
        first, second = batch["pixel_values"].unbind(1)
        update_momentum(backbone, momentum_backbone, m=0.99)
        update_momentum(projection, momentum_projection, m=0.99)
        with mixed_precision(device):
            p0, z0, p1, z1 = online(first), target(first), online(second), target(second)
            loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def byol_pytorch(name: str, device: str = "cpu", size: int = 224) -> Step:
    """BYOL from byol-pytorch's README, simplicial embeddings off; the views come through its augmentation hooks."""
    import torchvision
    from byol_pytorch import BYOL

    views: list[Tensor] = []
    learner = BYOL(
        getattr(torchvision.models, name)().to(device),
        image_size=size,
        hidden_layer="avgpool",
        augment_fn=lambda x: views[0] if views else x,
        augment_fn2=lambda x: views[1] if views else x,
        use_simplicial_embeddings=False,
    ).to(device)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)

    def step(batch: Batch) -> None:
        views[:] = batch["pixel_values"].unbind(1)
        with mixed_precision(device):
            loss = learner(views[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    return step


def contenders(name: str, device: str, size: int) -> dict[str, Callable[[], Step]]:
    """What makes each step function, by the names of the tables; the limit first."""
    return {
        "limit": lambda: bare(name, device),
        "BYOL": lambda: byol(name, device),
        "Ladder, four levels": lambda: ladder(name, device),
        "lightly BYOL": lambda: lightly_byol(name, device),
        "lightly BYOL, LARS": lambda: lightly_byol(name, device, lars=True),
        "byol-pytorch": lambda: byol_pytorch(name, device, size),
    }
