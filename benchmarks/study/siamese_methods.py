"""Eight other self-supervised methods, of lightly's losses, heads and momentum, on a backbone of this package.

Each is a module whose forward takes two views and returns the loss. Settings are the published ones; sizes are scaled
from ImageNet and a ResNet-50 (1.28 million images, 2,048 features) to the study's 9,469 images and 256 features. What
was scaled stands beside it. Used by peers.py.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightly import loss as losses
from lightly.models import utils
from lightly.models.modules import heads
from torch import Tensor, nn
from torch.nn.functional import normalize

HIDDEN, SIZE = 512, 128
"""Widths of the heads, as the study's recipes give BYOL and the Ladder (4,096 and 256 on ImageNet)."""
QUEUE = 1024
"""Keys in the queues of MoCo v2 and DenseCL: of both views of 5 % of the images, as 65,536 are of ImageNet's."""


class SiameseMethod(nn.Module):
    """What the methods share: the backbone, its pooled features, and a momentum copy where there is one.

    Args:
        backbone: Returns `feature_maps`, (batch, channels, height, width) each; `channels` lists their channels.
    """

    base_momentum: float | None = None

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.width: int = backbone.channels[-1]  # type: ignore[index,assignment]

    def features(self, view: Tensor) -> Tensor:
        """Return the pooled features of the last stage, (batch, channels)."""
        return self.map(view).mean(dim=(2, 3))

    def map(self, view: Tensor) -> Tensor:
        """Return the map of the last stage, (batch, channels, height, width)."""
        found: Tensor = self.backbone(view).feature_maps[-1]
        return found

    def after_step(self, step: int, steps: int) -> None:
        """Do what follows an optimizer step, of which `step` are done."""


class FullPrecision(nn.Module):
    """A loss that is computed in float32 under autocast too."""

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, *inputs: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            loss: Tensor = self.criterion(*inputs)
        return loss


class MomentumMethod(SiameseMethod):
    """A method with a momentum copy of backbone and heads, without gradients."""

    def add_momentum(self, base: float, *names: str) -> None:
        """Copy the backbone and the named heads; the copies are called as they, with `_momentum` after the name."""
        self.base_momentum, self.followed = base, ("backbone", *names)
        for name in self.followed:
            setattr(self, f"{name}_momentum", copy.deepcopy(getattr(self, name)).requires_grad_(False))

    def after_step(self, step: int, steps: int) -> None:
        assert self.base_momentum is not None
        momentum = self.momentum_at(step, steps)
        for name in self.followed:
            utils.update_momentum(getattr(self, name), getattr(self, f"{name}_momentum"), m=momentum)

    def momentum_at(self, step: int, steps: int) -> float:
        """Return the share of itself that the copy keeps: constant, as in MoCo."""
        assert self.base_momentum is not None
        return self.base_momentum


class ProjectedMethod(SiameseMethod):
    """A method whose loss compares the projections of both views: a `projector` and a `criterion`."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        loss: Tensor = self.criterion(*(self.projector(self.features(view)).float() for view in (first, second)))
        return loss


class SimCLR(ProjectedMethod):
    """arXiv 2002.05709: NT-Xent at a temperature of 0.1."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.SimCLRProjectionHead(self.width, HIDDEN, SIZE)
        self.criterion = FullPrecision(losses.NTXentLoss(temperature=0.1))


class MoCoV2(MomentumMethod):
    """arXiv 2003.04297: temperature 0.2, a queue, each view a query. Momentum .99 (.999 for 250 times the steps)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.MoCoProjectionHead(self.width, HIDDEN, SIZE)
        self.criterion = FullPrecision(losses.NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, SIZE)))
        self.add_momentum(0.99, "projector")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        queries = [self.projector(self.features(view)).float() for view in (first, second)]
        with torch.no_grad():
            keys = [self.key(view) for view in (first, second)]
        loss: Tensor = (self.criterion(queries[0], keys[1]) + self.criterion(queries[1], keys[0])) / 2
        return loss

    def key(self, view: Tensor) -> Tensor:
        """Return the momentum projection; batches are shuffled as in MoCo, which matters on several devices only."""
        shuffled, order = utils.batch_shuffle(view)
        pooled = self.backbone_momentum(shuffled).feature_maps[-1].mean(dim=(2, 3))
        unshuffled: Tensor = utils.batch_unshuffle(self.projector_momentum(pooled), order)
        return unshuffled.float()


class SimSiam(SiameseMethod):
    """arXiv 2011.10566: a projector of three layers as wide as its output, a predictor a quarter as wide."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.SimSiamProjectionHead(self.width, HIDDEN, HIDDEN)
        self.predictor = heads.SimSiamPredictionHead(HIDDEN, HIDDEN // 4, HIDDEN)
        self.criterion = FullPrecision(losses.NegativeCosineSimilarity())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        projections = [self.projector(self.features(view)) for view in (first, second)]
        predictions = [self.predictor(projection).float() for projection in projections]
        stopped = [projection.detach().float() for projection in projections]
        loss: Tensor = (self.criterion(predictions[0], stopped[1]) + self.criterion(predictions[1], stopped[0])) / 2
        return loss


class BarlowTwins(ProjectedMethod):
    """arXiv 2103.03230: lambda 5e-3; the projector is four times as wide as the features (8,192 over 2,048)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.BarlowTwinsProjectionHead(self.width, 4 * self.width, 4 * self.width)
        self.criterion = FullPrecision(losses.BarlowTwinsLoss(lambda_param=5e-3))


class VICReg(ProjectedMethod):
    """arXiv 2105.04906: weights 25, 25, 1; the projector is four times as wide as the features (8,192 over 2,048)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.VICRegProjectionHead(self.width, 4 * self.width, 4 * self.width)
        self.criterion = FullPrecision(losses.VICRegLoss())


class SwAV(SiameseMethod):
    """arXiv 2006.09882, two views: 300 prototypes (3,000 for ten times the classes), and its queue for small batches.

    Prototypes are frozen in the first fifth of a pass; the queue is used from a seventh of the steps on (15 epochs of
    100 there), and holds eight batches of each view (15 there).
    """

    PROTOTYPES, FROZEN, QUEUED = 300, 30, 8

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.SwaVProjectionHead(self.width, HIDDEN, SIZE)
        self.prototypes = heads.SwaVPrototypes(SIZE, self.PROTOTYPES, n_steps_frozen_prototypes=self.FROZEN)
        self.criterion = FullPrecision(losses.SwaVLoss())
        self.step, self.use_queue = 0, False
        self.queues: list[list[Tensor]] = [[], []]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.prototypes.normalize()
        projections = [normalize(self.projector(self.features(view)).float(), dim=1) for view in (first, second)]
        queued = None
        if self.use_queue:
            with torch.no_grad():
                queued = [self.prototypes(torch.cat(queue), step=self.step) for queue in self.queues]
        logits = [self.prototypes(projection, step=self.step) for projection in projections]
        for queue, projection in zip(self.queues, projections, strict=True):
            queue.append(projection.detach())
            del queue[: -self.QUEUED]
        loss: Tensor = self.criterion(logits, [], queued)
        return loss

    def after_step(self, step: int, steps: int) -> None:
        self.step, self.use_queue = step, step >= steps // 7


class DINO(MomentumMethod):
    """arXiv 2104.14294, two views: student temperature 0.1, teacher 0.04, momentum .99 to 1 on a cosine.

    4,096 outputs (65,536), a bottleneck of 128 (256); its last layer is frozen for a fifth of a pass (one epoch).
    """

    OUTPUTS, FROZEN = 4096, 30

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = heads.DINOProjectionHead(
            self.width, HIDDEN, SIZE, self.OUTPUTS, batch_norm=True, freeze_last_layer=self.FROZEN
        )
        self.criterion = FullPrecision(losses.DINOLoss(self.OUTPUTS, warmup_teacher_temp_epochs=1))
        # weight_norm's weight is no leaf and cannot be copied; a second head of the same weights can be made.
        self.add_momentum(0.99)
        self.projector_momentum = heads.DINOProjectionHead(
            self.width, HIDDEN, SIZE, self.OUTPUTS, batch_norm=True, freeze_last_layer=self.FROZEN
        )
        self.projector_momentum.load_state_dict(self.projector.state_dict())
        self.projector_momentum.requires_grad_(False)
        self.followed = (*self.followed, "projector")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        student = [self.projector(self.features(view)).float() for view in (first, second)]
        with torch.no_grad():
            pooled = [self.backbone_momentum(view).feature_maps[-1].mean(dim=(2, 3)) for view in (first, second)]
            teacher = [self.projector_momentum(feature).float() for feature in pooled]
        loss: Tensor = self.criterion(teacher, student)
        return loss

    def before_step(self, step: int) -> None:
        """Drop the gradients of the last layer while it is frozen."""
        self.projector.cancel_last_layer_gradients(step)

    def momentum_at(self, step: int, steps: int) -> float:
        from lightly.utils.scheduler import cosine_schedule

        return float(cosine_schedule(min(step, steps - 1), steps, self.base_momentum, 1.0))


class DenseCL(MoCoV2):
    """arXiv 2011.09157: half MoCo v2's loss, half that of each position and the most similar one of the other view."""

    def __init__(self, backbone: nn.Module) -> None:
        SiameseMethod.__init__(self, backbone)
        self.projector = heads.DenseCLProjectionHead(self.width, HIDDEN, SIZE)
        self.local_projector = heads.DenseCLProjectionHead(self.width, HIDDEN, SIZE)
        self.criterion = FullPrecision(losses.NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, SIZE)))
        self.local_criterion = FullPrecision(losses.NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, SIZE)))
        self.add_momentum(0.99, "projector", "local_projector")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.one_way(first, second) + self.one_way(second, first)) / 2

    def one_way(self, query_view: Tensor, key_view: Tensor) -> Tensor:
        """Return the loss of one view's queries against the other one's keys."""
        query_map = self.map(query_view)
        query_features, query = query_map.flatten(2).transpose(1, 2), query_map.mean(dim=(2, 3))
        with torch.no_grad():
            shuffled, order = utils.batch_shuffle(key_view)
            key_map = utils.batch_unshuffle(self.backbone_momentum(shuffled).feature_maps[-1], order)
            key_features = key_map.flatten(2).transpose(1, 2)
            key = self.projector_momentum(key_map.mean(dim=(2, 3))).float()
            local_keys = self.local_projector_momentum(key_features)
            matched = utils.select_most_similar(query_features, key_features, local_keys).flatten(end_dim=1).float()
        local_queries = self.local_projector(query_features).flatten(end_dim=1).float()
        whole: Tensor = self.criterion(self.projector(query).float(), key)
        local: Tensor = self.local_criterion(local_queries, matched)
        return (whole + local) / 2


METHODS: dict[str, Callable[[Any], SiameseMethod]] = {
    "simclr": SimCLR,
    "mocov2": MoCoV2,
    "simsiam": SimSiam,
    "barlowtwins": BarlowTwins,
    "vicreg": VICReg,
    "swav": SwAV,
    "dino": DINO,
    "densecl": DenseCL,
}
