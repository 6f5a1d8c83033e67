"""Pretraining: an online and a target network, with heads and a loss at every level.

BYOL (arXiv 2006.07733) at several stages of the backbone, after Yoshihashi et al., "Ladder Siamese Network" (arXiv
2211.13844). With one global level on the last stage it is BYOL, with `target="stop_gradient"` SimSiam (arXiv
2011.10566).
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .configuration_ladder import LadderSiameseConfig
from .heads import TargetNetwork, build_heads
from .losses import normalised_std, symmetric_loss
from .matching import LocationMatch, grid_cells, match_features, match_locations, sample_points, take_cells
from .modeling_ladder import LadderSiamesePreTrainedModel

Maps = dict[str, Tensor]
_STAGE_LISTS = ("stages", "layers", "layer", "blocks")


@dataclass
class LadderSiameseForPreTrainingOutput(ModelOutput):
    """Output of `LadderSiameseForPreTraining`.

    Attributes:
        loss: Scalar, the sum over levels of weight times loss; None with `return_loss=False`.
        level_losses: "stage1.local" and so on to a scalar, unweighted, both directions summed.
        projection_std: same keys; standard deviation of the normalised online projections times sqrt(size): about 1 is
            healthy, 0 is collapsed.
        matched_fraction: Scalar, the share of image pairs whose views overlap; None without location matching.
    """

    loss: Tensor | None = None
    level_losses: dict[str, Tensor] | None = None
    projection_std: dict[str, Tensor] | None = None
    matched_fraction: Tensor | None = None


class LadderSiameseForPreTraining(LadderSiamesePreTrainedModel):
    """Online backbone, projectors and predictors; target backbone and projectors; heads named by stage and kind."""

    # Everything that this class saves is expected when it loads.
    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: LadderSiameseConfig) -> None:
        super().__init__(config)
        self.backbone = self._build_backbone(config)
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
        """Memory format; the target and the heads of levels without weight never train."""
        super()._finish()
        for stage, kind, weight in self.config.levels:
            self.projectors[stage][kind].requires_grad_(weight > 0)
            self.predictors[stage][kind].requires_grad_(weight > 0)
        if self.target is not None:
            self.target.requires_grad_(False)

    def _after_loading(self, missing: set[str]) -> None:
        # Loading re-creates every parameter as trainable, and fills missing ones at random.
        if any(key.startswith("target.") for key in missing):
            self.reset_target()
        super()._after_loading(missing)

    @torch.no_grad()
    def reset_target(self) -> None:
        """Make the target a copy of the online network, parameters and buffers."""
        if self.target is not None:
            self.target.backbone.load_state_dict(self.backbone.state_dict())
            self.target.projectors.load_state_dict(self.projectors.state_dict())

    def _averaged_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        online = [*self.backbone.parameters(), *self.projectors.parameters()]
        target = [*self.target.backbone.parameters(), *self.target.projectors.parameters()]
        return online, target

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target: theta' <- momentum * theta' + (1 - momentum) * theta, in float32; the only place where it
        changes.

        Batch-norm statistics are the target's own and stay. With `target="stop_gradient"` nothing happens.

        Args:
            momentum: tau, from 0 to 1.

        Raises:
            ValueError: momentum is out of range.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1, got {momentum}")
        if self.target is None:
            return
        online, target = self._averaged_pairs()
        online = [parameter.to(average.dtype) for parameter, average in zip(online, target, strict=True)]
        torch._foreach_mul_(target, momentum)
        torch._foreach_add_(target, online, alpha=1 - momentum)

    def forward(
        self,
        pixel_values: Tensor,
        view_boxes: Tensor | None = None,
        view_flips: Tensor | None = None,
        return_loss: bool = True,
    ) -> LadderSiameseForPreTrainingOutput:
        """Losses of a batch of view pairs. Each view is one forward of each network, so batch norm sees one view at a
        time.

        Args:
            pixel_values: float (batch, 2, channels, height, width), normalised.
            view_boxes: float (batch, 2, 4), each crop's x0, y0, x1, y1 in [0, 1] of the source image.
            view_flips: bool (batch, 2), the crop was mirrored left to right.
            return_loss: Also compute the weighted total.

        Raises:
            ValueError: a shape is wrong, or location matching lacks `view_boxes` or `view_flips`.
        """
        if pixel_values.dim() != 5 or pixel_values.shape[1] != 2:
            raise ValueError(
                "pixel_values must be (batch, 2 views, channels, height, width), got " + str(tuple(pixel_values.shape))
            )
        match = self._match(pixel_values.shape[0], view_boxes, view_flips)
        views = [view.contiguous(memory_format=self._memory_format) for view in pixel_values.unbind(dim=1)]
        # The target goes first: its activations are freed at once, and the online network's take their memory.
        if self.target is not None:
            with torch.no_grad():
                target = [self._stage_maps(self.target.backbone, view) for view in views]
        online = [self._stage_maps(self.backbone, view) for view in views]
        if self.target is None:
            target = [{stage: cells.detach() for stage, cells in maps.items()} for maps in online]

        total, losses, spreads = None, {}, {}
        for stage, kind, weight in self.config.levels:
            with nullcontext() if weight > 0 else torch.no_grad():
                loss, spread = self._level_loss(stage, kind, online, target, match)
            losses[f"{stage}.{kind}"], spreads[f"{stage}.{kind}"] = loss.detach(), spread
            if weight > 0:
                total = weight * loss if total is None else total + weight * loss
        return LadderSiameseForPreTrainingOutput(
            loss=total if return_loss else None,
            level_losses=losses,
            projection_std=spreads,
            matched_fraction=match.valid.float().mean() if match is not None else None,
        )

    def _match(self, batch: int, view_boxes: Tensor | None, view_flips: Tensor | None) -> LocationMatch | None:
        config = self.config
        if config.local_matching != "location" or not any(kind == "local" for _, kind, _ in config.levels):
            return None
        for name, value, shape in (("view_boxes", view_boxes, (batch, 2, 4)), ("view_flips", view_flips, (batch, 2))):
            if value is None:
                raise ValueError(
                    f"{name} is missing: local levels with local_matching='location' need view_boxes and view_flips; "
                    "TwoViewTransform gives both"
                )
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")
        return match_locations(view_boxes, view_flips, config.local_grid_size)

    def _level_vectors(self, kind: str, maps: Tensor, view: int, match: LocationMatch | None) -> Tensor:
        """What enters the projector: (batch, channels) or (batch, points, channels)."""
        if kind == "global":
            # To the bit `mean(dim=(2, 3))`, but its gradient is channels-last, as the backbone's own: adding the
            # two in different layouts made a step of a small network a fifth slower.
            return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
        if match is not None:
            return sample_points(maps, match.points[view])
        return grid_cells(maps, self.config.local_grid_size)

    def _level_loss(
        self, stage: str, kind: str, online: list[Maps], target: list[Maps], match: LocationMatch | None
    ) -> tuple[Tensor, Tensor]:
        """Loss of one level and the spread of its projections."""
        projector, predictor = self.projectors[stage][kind], self.predictors[stage][kind]
        features = [self._level_vectors(kind, online[view][stage], view, match) for view in range(2)]
        projections = [projector(vectors) for vectors in features]
        predictions = [predictor(vectors) for vectors in projections]
        if self.target is None:
            target_features = [vectors.detach() for vectors in features]
            targets = [vectors.detach() for vectors in projections]
        else:
            with torch.no_grad():
                target_features = [self._level_vectors(kind, target[view][stage], view, match) for view in range(2)]
                targets = [self.target.projectors[stage][kind](vectors) for vectors in target_features]
        if kind == "local" and match is None:
            # Cells are paired per direction; crossing happens here, so `symmetric_loss` gets each target in its place.
            to_second = match_features(features[0], target_features[1])
            to_first = match_features(features[1], target_features[0])
            targets = [take_cells(targets[0], to_first), take_cells(targets[1], to_second)]
        valid = match.valid if kind == "local" and match is not None else None
        loss = symmetric_loss((predictions[0], predictions[1]), (targets[0], targets[1]), valid)
        return loss, normalised_std(projections[0])

    @torch.no_grad()
    def project(self, pixel_values: Tensor, maps: Maps | None = None) -> Maps:
        """Online projections of single images, for watching a run; local levels give a K x K grid over the image.

        Args:
            pixel_values: (batch, channels, height, width).
            maps: What `feature_maps(pixel_values)` gave, if it was called already.

        Returns:
            "stage1.local" and so on to (batch, size) for global, (batch, points, size) for local levels.
        """
        maps = self.feature_maps(pixel_values) if maps is None else maps
        batch = pixel_values.shape[0]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=pixel_values.device).expand(batch, 2, 4)
        match = self._match(batch, whole, torch.zeros(batch, 2, dtype=torch.bool, device=pixel_values.device))
        return {
            f"{stage}.{kind}": self.projectors[stage][kind](self._level_vectors(kind, maps[stage], 0, match))
            for stage, kind, _ in self.config.levels
        }


def find_stages(backbone: nn.Module, count: int) -> nn.ModuleList:
    """The modules of a backbone that are its stages, first to last.

    Args:
        backbone: Of transformers; its stages lie in one `ModuleList`.
        count: How many there are.

    Raises:
        ValueError: it has no such list.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and name.rpartition(".")[2] in _STAGE_LISTS:
            return module
    raise ValueError(
        f"detach_stages: the stages of {type(backbone).__name__} are not to be found as one list of {count} modules "
        f"named {', '.join(_STAGE_LISTS)}; leave detach_stages out"
    )


def _detach_arguments(module: nn.Module, arguments: tuple) -> tuple:
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in arguments)


__all__ = ["LadderSiameseForPreTraining", "LadderSiameseForPreTrainingOutput"]
