"""Pretraining: an online and a target network, with heads and a loss at every level.

This is BYOL (arXiv 2006.07733) at several stages of the backbone, after Yoshihashi et al., "Ladder Siamese Network"
(arXiv 2211.13844). With one global level on the last stage it is exactly BYOL, and with `target="stop_gradient"` it is
SimSiam (arXiv 2011.10566).
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .batch_norm import convert_batch_norms
from .configuration_ladder import LadderSiameseConfig
from .heads import TargetNetwork, build_heads, head
from .losses import normalised_stds, symmetric_loss
from .matching import (
    LocationMatch,
    grid_cells,
    match_features,
    match_locations,
    region_weights,
    sampling_weights,
    take_cells,
    weigh_cells,
)
from .modeling_ladder import LadderSiamesePreTrainedModel

Maps = dict[str, Tensor]
Sampling = dict[tuple[str, str], tuple[Tensor, ...]]
_STAGE_LISTS = ("stages", "layers", "layer", "blocks")


@dataclass
class LadderSiameseForPreTrainingOutput(ModelOutput):
    """Output of `LadderSiameseForPreTraining`.

    Attributes:
        loss: Scalar, the weighted sum of the losses of all levels. None with `return_loss=False`.
        level_losses: Level ("stage1.local") to its unweighted loss, a scalar: the sum of both directions.
        projection_std: Level to the standard deviation of the normalised online projections times sqrt(size), a scalar:
            about 1 is healthy, 0 is collapsed.
        matched_fraction: Scalar, the fraction of image pairs whose views overlap. None if no level matches places.
    """

    loss: Tensor | None = None
    level_losses: dict[str, Tensor] | None = None
    projection_std: dict[str, Tensor] | None = None
    matched_fraction: Tensor | None = None


@dataclass
class _Level:
    """What the loss of a level needs: predictions and targets (2, batch, [points,] size), projections of view 1."""

    name: str
    prediction: Tensor
    target: Tensor
    projection: Tensor


class LadderSiameseForPreTraining(LadderSiamesePreTrainedModel):
    """The online network (backbone, projectors, predictors) and the target network (backbone, projectors).

    Heads are named by stage and kind of loss.
    """

    # This class saves and loads the heads and the target, so none of their keys is unexpected.
    _keys_to_ignore_on_load_unexpected = None
    # Computing a forward again would count every batch twice in batch norm.
    supports_gradient_checkpointing = False

    def __init__(self, config: LadderSiameseConfig) -> None:
        super().__init__(config)
        self.backbone = cast(PreTrainedModel, convert_batch_norms(self._build_backbone(config)))
        channels = self.backbone.out_feature_channels
        size, hidden = config.projection_size, config.hidden_size
        self.projectors = build_heads({(s, k): (channels[s], hidden(s, k), size) for s, k, _ in config.levels})
        self.predictors = build_heads({(s, k): (size, hidden(s, k), size) for s, k, _ in config.levels})
        self.post_init()
        self.target = None
        if config.target == "ema":
            self.target = TargetNetwork(copy.deepcopy(self.backbone), copy.deepcopy(self.projectors))
        if config.detach_stages:
            for stage in find_stages(self.backbone, len(config.stages))[1:]:
                stage.register_forward_pre_hook(_detach_arguments)
        self._finish()

    def _finish(self) -> None:
        """Set the memory format; freeze the target and the heads of levels with weight 0."""
        super()._finish()
        for stage, kind, weight in self.config.levels:
            head(self.projectors, stage, kind).requires_grad_(weight > 0)
            head(self.predictors, stage, kind).requires_grad_(weight > 0)
        if self.target is not None:
            self.target.requires_grad_(False)

    def _after_loading(self, missing: set[str]) -> None:
        # Loading makes every parameter trainable again and fills missing ones with random values.
        if any(key.startswith("target.") for key in missing):
            self.reset_target()
        super()._after_loading(missing)

    @torch.no_grad()
    def reset_target(self) -> None:
        """Copy the parameters and buffers of the online network into the target."""
        if self.target is not None:
            self.target.backbone.load_state_dict(self.backbone.state_dict())
            self.target.projectors.load_state_dict(self.projectors.state_dict())

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Update the target's parameters: theta' <- momentum * theta' + (1 - momentum) * theta, in float32.

        This is the only place where they change. The target keeps its own batch-norm statistics. With
        `target="stop_gradient"` there is nothing to update, and the call does nothing.

        Args:
            momentum: tau, from 0 to 1.

        Raises:
            ValueError: `momentum` is out of range.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
        if self.target is None:
            return
        parameters = [*self.backbone.parameters(), *self.projectors.parameters()]
        target: list[Tensor] = [*self.target.backbone.parameters(), *self.target.projectors.parameters()]
        online = [parameter.to(average.dtype) for parameter, average in zip(parameters, target, strict=True)]
        if target[0].device.type == "cpu":  # one after the other, so that each is still in the processor's cache
            for average, value in zip(target, online, strict=True):
                average.mul_(momentum).add_(value, alpha=1 - momentum)
            return
        torch._foreach_mul_(target, momentum)
        torch._foreach_add_(target, online, alpha=1 - momentum)

    def forward(
        self,
        pixel_values: Tensor,
        view_boxes: Tensor | None = None,
        view_flips: Tensor | None = None,
        return_loss: bool = True,
    ) -> LadderSiameseForPreTrainingOutput:
        """Compute the losses of a batch of view pairs.

        Each network processes each view in a separate forward pass, so batch norm sees one view at a time.

        Args:
            pixel_values: float (batch, 2, channels, height, width), normalised.
            view_boxes: float (batch, 2, 4), each crop's x0, y0, x1, y1 in [0, 1] of the source image. Required by
                location matching.
            view_flips: bool (batch, 2), whether the crop was flipped left to right. Required by location matching.
            return_loss: Also return the weighted total.

        Returns:
            The total loss, the loss and the spread of each level, and the fraction of matched pairs.

        Raises:
            ValueError: A shape is wrong, or location matching lacks `view_boxes` or `view_flips`.
        """
        if pixel_values.dim() != 5 or pixel_values.shape[1] != 2:
            raise ValueError(
                "pixel_values must be (batch, 2 views, channels, height, width), got " + str(tuple(pixel_values.shape))
            )
        match = self._match(pixel_values.shape[0], view_boxes, view_flips)
        views = [view.contiguous(memory_format=self._memory_format) for view in pixel_values.unbind(dim=1)]
        sampling: Sampling = {}
        # The target runs first: its activations are freed at once, and the online network reuses their memory.
        if self.target is not None:
            with torch.no_grad():
                targets = self.target.run(lambda network: self._project_target(network, views, match, sampling))
        online = [self._stage_maps(self.backbone, view) for view in views]

        levels: dict[tuple[str, float, tuple[int, ...]], list[_Level]] = {}
        for stage, kind, weight in self.config.levels:
            with nullcontext() if weight > 0 else torch.no_grad():
                features = self._level_vectors(stage, kind, [maps[stage] for maps in online], match, sampling)
                projection = head(self.projectors, stage, kind).views(features)
                prediction = head(self.predictors, stage, kind).views(projection)
            if self.target is None:
                target, target_features = projection.detach(), [vectors.detach() for vectors in features]
            else:
                target, target_features = targets[f"{stage}.{kind}"]
            if kind == "local" and self._matches_features:
                # Cells are matched separately for each direction. `symmetric_loss` crosses the targets afterwards, so
                # each stays at the index of its own view.
                to_second = match_features(features[0], target_features[1])
                to_first = match_features(features[1], target_features[0])
                target = torch.stack([take_cells(target[0], to_first), take_cells(target[1], to_second)])
            level = _Level(f"{stage}.{kind}", prediction, target, projection[0].detach())
            levels.setdefault((kind, weight, prediction.shape), []).append(level)

        total, losses, spreads = self._losses(levels, match.valid if match is not None else None)
        names = [f"{stage}.{kind}" for stage, kind, _ in self.config.levels]
        return LadderSiameseForPreTrainingOutput(
            loss=total if return_loss else None,
            level_losses={name: losses[name] for name in names},
            projection_std={name: spreads[name] for name in names},
            matched_fraction=match.valid.float().mean() if match is not None else None,
        )

    @property
    def _matches_features(self) -> bool:
        return self.config.local_matching == "feature"

    def _match(self, batch: int, view_boxes: Tensor | None, view_flips: Tensor | None) -> LocationMatch | None:
        """Match the locations of the views, or return None if no level needs it."""
        config = self.config
        located = {"region"} if self._matches_features else {"local", "region"}
        if not any(kind in located for _, kind, _ in config.levels):
            return None
        for name, value, shape in (("view_boxes", view_boxes, (batch, 2, 4)), ("view_flips", view_flips, (batch, 2))):
            if value is None:
                raise ValueError(
                    f"{name} is missing: local levels with local_matching='location' and region levels need view_boxes "
                    "and view_flips; TwoViewTransform gives both"
                )
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")
        return match_locations(cast(Tensor, view_boxes), cast(Tensor, view_flips), config.local_grid_size)

    def _level_vectors(
        self, stage: str, kind: str, maps: list[Tensor], match: LocationMatch | None, sampling: Sampling
    ) -> list[Tensor]:
        """Compute the projector's input of each view: (batch, channels) or (batch, points, channels).

        Args:
            stage: Name of the stage.
            kind: "global", "local" or "region".
            maps: The stage's map of each view.
            match: The matched locations, if they are needed.
            sampling: Stage and kind to the weights that sample the map of each view; both networks use them.
        """
        if kind == "global":
            # Bit for bit the result of `mean(dim=(2, 3))`, but the gradient is channels-last like the backbone's own.
            # Adding gradients of different layouts made a step of a small network a fifth slower.
            return [cells.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1) for cells in maps]
        if kind == "local" and self._matches_features:
            return [grid_cells(cells, self.config.local_grid_size) for cells in maps]
        if (stage, kind) not in sampling:
            found = cast(LocationMatch, match)
            places, weights_of = (
                (found.points, sampling_weights) if kind == "local" else (found.corners, region_weights)
            )
            weights = weights_of(places[: len(maps)], *maps[0].shape[-2:])
            sampling[stage, kind] = weights.to(maps[0].dtype).unbind()
        of_view = sampling[stage, kind]
        # torch.compile of torch 2.6 does not know `zip(..., strict=True)`.
        return [weigh_cells(maps[view], of_view[view]) for view in range(len(maps))]

    def _project_target(
        self, network: TargetNetwork, views: list[Tensor], match: LocationMatch | None, sampling: Sampling
    ) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Compute the target's projections (2, batch, [points,] size) of each level, and their projector's inputs."""
        maps = [self._stage_maps(network.backbone, view) for view in views]
        projected = {}
        for stage, kind, _ in self.config.levels:
            vectors = self._level_vectors(stage, kind, [of_view[stage] for of_view in maps], match, sampling)
            # The inputs are compared with those of the online network in feature matching only.
            kept = vectors if kind == "local" and self._matches_features else []
            projected[f"{stage}.{kind}"] = head(network.projectors, stage, kind).views(vectors), kept
        return projected

    def _losses(
        self, groups: dict[tuple[str, float, tuple[int, ...]], list["_Level"]], overlapping: Tensor | None
    ) -> tuple[Tensor | None, Maps, Maps]:
        """Compute the weighted total, and the loss and spread of every level; levels of one group together."""
        total, losses, spreads = None, {}, {}
        for (kind, weight, _), levels in groups.items():
            # A cell finds the most similar one wherever it is, so feature matching needs no overlap.
            valid = overlapping if kind == "region" or (kind == "local" and not self._matches_features) else None
            with nullcontext() if weight > 0 else torch.no_grad():
                predictions = torch.stack([level.prediction for level in levels])
                found = symmetric_loss(predictions, torch.stack([level.target for level in levels]), valid)
            if weight > 0:
                part = found.sum() if weight == 1 else weight * found.sum()
                total = part if total is None else total + part
            stds = normalised_stds(torch.stack([level.projection for level in levels]))
            for level, loss, std in zip(levels, found.detach().unbind(), stds.unbind(), strict=True):
                losses[level.name], spreads[level.name] = loss, std
        return total, losses, spreads

    @torch.no_grad()
    def project(self, pixel_values: Tensor, maps: Maps | None = None) -> Maps:
        """Compute the online projections of single images, to monitor a run.

        Local levels use a K x K grid over the whole image.

        Args:
            pixel_values: (batch, channels, height, width).
            maps: The result of `feature_maps(pixel_values)`, if it is known already.

        Returns:
            Level ("stage1.local") to (batch, size) for global and (batch, points, size) for local levels.
        """
        maps = self.feature_maps(pixel_values) if maps is None else maps
        batch = pixel_values.shape[0]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=pixel_values.device).expand(batch, 2, 4)
        match = self._match(batch, whole, torch.zeros(batch, 2, dtype=torch.bool, device=pixel_values.device))
        projected, sampling = {}, cast(Sampling, {})
        for stage, kind, _ in self.config.levels:
            vectors = self._level_vectors(stage, kind, [maps[stage]], match, sampling)[0]
            projected[f"{stage}.{kind}"] = head(self.projectors, stage, kind)(vectors)
        return projected


def find_stages(backbone: nn.Module, count: int) -> nn.ModuleList:
    """Find the stages of a transformers backbone, first to last.

    Args:
        backbone: The backbone; one `ModuleList` contains its stages.
        count: The number of stages.

    Raises:
        ValueError: The backbone has no such list.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and name.rpartition(".")[2] in _STAGE_LISTS:
            return module
    raise ValueError(
        f"detach_stages: the stages of {type(backbone).__name__} are not to be found as one list of {count} modules "
        f"named {', '.join(_STAGE_LISTS)}; leave detach_stages out"
    )


def _detach_arguments(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in arguments)


__all__ = ["LadderSiameseForPreTraining", "LadderSiameseForPreTrainingOutput"]
