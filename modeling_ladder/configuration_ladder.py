"""Configuration of Ladder Siamese models.

The method is the "Ladder Siamese Network" of Yoshihashi et al. (arXiv 2211.13844): a BYOL-style loss at every stage of
the backbone. The weights of the stages, which stages get the global or the local loss, how local positions are matched,
and the sizes of the heads are this package's choices, not the paper's.
"""

import copy
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, ClassVar, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto import CONFIG_MAPPING

from .labels import PROBLEMS
from .timm_configs import with_stages

LOSS_KINDS = ("local", "global", "region")
BOTH = "both"
MATCHINGS = ("location", "feature")
TARGETS = ("ema", "stop_gradient")
MANY_STAGES = 8
HOW_TO_LOAD = ("dtype", "torch_dtype", "attn_implementation")
"""Attributes of every config that, given to `from_pretrained`, are for the backbone."""
HEAD_SIZES = (
    "projection_hidden_size",
    "lower_projection_hidden_size",
    "local_projection_hidden_size",
    "projection_size",
)


def spread(stages: Sequence[str], count: int = 4) -> list[str]:
    """Choose evenly spaced stages, the last one among them.

    Args:
        stages: Names, first to last.
        count: How many, at most `len(stages)`.
    """
    return [stages[round(len(stages) * part / count) - 1] for part in range(1, count + 1)]


def loss_kinds(entry: str) -> tuple[str, ...]:
    """Return the kinds of loss that an entry of `level_losses` stands for, in the order of `LOSS_KINDS`.

    Args:
        entry: A kind, "both", or different kinds joined by "+".

    Returns:
        The kinds; none if the entry is not valid.
    """
    if entry == BOTH:
        return "local", "global"
    named = entry.split("+")
    valid = len(set(named)) == len(named) and set(named) <= set(LOSS_KINDS)
    return tuple(kind for kind in LOSS_KINDS if kind in named) if valid else ()


class LadderSiameseConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of `LadderSiameseModel` and the models built on it.

    The defaults of `projection_hidden_size` and `projection_size` are BYOL's. The other defaults (`level_losses`,
    `level_weights`, `local_grid_size`, `local_projection_hidden_size`, ...) are this package's choices, because the
    paper's values were not available. docs/study.md has the measurements behind them. On Imagenette at 96 pixels, five
    seeds, both losses at every level with equal weights beat BYOL by 6.1 points of linear accuracy and at every stage;
    on development images, global losses alone did not beat it, and rising weights were a point worse than equal ones.
    At 64 pixels, where the last map is 2 x 2, global losses alone (`level_losses=["global"] * 4`,
    `level_weights=[0.1, 0.25, 0.5, 1]`) did about as well and cost less.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Config of any transformers backbone with feature maps; its stages are the levels. Default: ResNet-50.
        level_names (`list[str]`, *optional*):
            Stages that get a loss, in the backbone's order. Default: all stages; the stem is not a stage. Of a
            backbone with eight or more, such as the twelve blocks of a ViT, four that are evenly spaced: 3, 6, 9, 12.
        level_losses (`list[str]`, *optional*):
            `"global"`, `"local"`, `"region"` or a sum of them such as `"global+region"`, one per level; `"both"` is
            `"local+global"`. Default: both at every level. A region loss compares the means over the same boxes of the
            source image in the two views; whether it is worth its cost has not been measured.
        level_weights (`list[float]`, *optional*):
            Weight of each level's loss, at least 0. A level with weight 0 reports its loss but trains nothing.
            Default: 1 for every level.
        projection_hidden_size (`int`, defaults to 4096): Width of the hidden layer of the global projector and
            predictor of the last level.
        lower_projection_hidden_size (`int`, *optional*):
            The same for the global heads of the earlier levels, whose stages are narrower. Default: 1024, or
            `projection_hidden_size` if that is smaller. This keeps four levels cheap.
        projection_size (`int`, defaults to 256): Width of the projections and predictions.
        local_projection_hidden_size (`int`, *optional*):
            Width of the hidden layer of the local heads, which run once per matched point. Default: 256, or
            `projection_hidden_size` if that is smaller. This keeps four levels cheap.
        local_matching (`str`, defaults to `"location"`):
            `"location"` samples both views at the same points of the source image; `"feature"` pairs each cell with
            the most similar unprojected cell of the other view (DenseCL's rule).
        local_grid_size (`int`, defaults to 4): Points (or cells) per side of the K x K grid.
        target (`str`, defaults to `"ema"`):
            With `"ema"` the target is a moving average of the online network (BYOL). With `"stop_gradient"` it is the
            online network itself, detached (SimSiam).
        base_momentum (`float`, defaults to 0.99):
            Momentum of the target (tau) at step 0, in [0, 1]. It rises to 1 along a cosine.
        detach_stages (`bool`, defaults to `False`):
            Keep the gradient of each level within its own stage (stage-wise, or greedy, learning) by detaching the
            input of every stage but the first. This is an ablation, not the method.
        classifier_stages (`list[str]`, *optional*):
            Stages whose pooled features `LadderSiameseForImageClassification` reads. Default: the last stage.

    Raises:
        ValueError: A value is wrong. The message names the field.
    """

    model_type = "ladder_siamese"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet"),
    }

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    level_names: list[str] | tuple[str, ...] | None = None
    level_losses: list[str] | tuple[str, ...] | None = None
    level_weights: list[float | int] | tuple[float | int, ...] | None = None
    projection_hidden_size: int = 4096
    projection_size: int = 256
    lower_projection_hidden_size: int | None = None
    local_projection_hidden_size: int | None = None
    local_matching: str = "location"
    local_grid_size: int = 4
    target: str = "ema"
    base_momentum: float | int = 0.99
    detach_stages: bool = False
    classifier_stages: list[str] | tuple[str, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        out_features, out_indices = kwargs.pop("out_features", None), kwargs.pop("out_indices", None)
        kwargs.pop("stage_names", None)  # written for readers of config.json only; the names come from the backbone
        if not type(self).__module__.startswith("transformers_modules."):
            # It names files of code beside the config.json that was read, which saving would not write again.
            kwargs.pop("auto_map", None)
        self._reject_misspelt(kwargs)
        if not isinstance(self.backbone_config, (dict, PreTrainedConfig, type(None))):
            raise ValueError(
                "backbone_config must be a transformers config, a dict or None, "
                f"got {type(self.backbone_config).__name__}"
            )
        self.backbone_config = copy.deepcopy(self.backbone_config)
        if isinstance(self.backbone_config, dict):
            self.backbone_config = self._backbone_from_dict(self.backbone_config)
        elif self.backbone_config is not None:
            self.backbone_config = with_stages(self.backbone_config)
        super().__post_init__(**kwargs)
        backbone = cast(PreTrainedConfig, self.backbone_config)  # transformers has filled in the default
        self.stage_names = list(getattr(backbone, "stage_names", None) or [])
        if not self.stage_names or not hasattr(backbone, "set_output_features_output_indices"):
            raise ValueError(
                f"backbone_config: model type {backbone.model_type!r} is not a transformers backbone with named stages "
                "(ResNet, ConvNeXt, Swin, DINOv2, ... are)"
            )
        backbone.out_features = self.stages
        self._fill_defaults()
        self.check()
        if out_features is None and out_indices is None:
            out_features = self.stages
        self.set_output_features_output_indices(
            out_features=list(out_features) if out_features is not None else None, out_indices=out_indices
        )

    @property
    def stages(self) -> list[str]:
        """The names of the backbone's stages, first to last, without the stem."""
        return [name for name in self.stage_names if name != "stem"]

    @property
    def levels(self) -> list[tuple[str, str, float]]:
        """The stage, kind ("local", "global" or "region") and weight of each loss.

        A level with "both" has a local and a global loss, each with the level's weight.
        """
        rows = zip(self.level_names or [], self.level_losses or [], self.level_weights or [], strict=True)
        return [(name, kind, float(weight)) for name, loss, weight in rows for kind in loss_kinds(loss)]

    def hidden_size(self, stage: str, kind: str) -> int:
        """Return the width of the hidden layer of a level's heads.

        Args:
            stage: One of `level_names`.
            kind: "local", "global" or "region".
        """
        # Construction has filled in every field, so none of them is None here.
        if kind != "global":
            return cast(int, self.local_projection_hidden_size)
        last = stage == cast(list[str], self.level_names)[-1]
        return self.projection_hidden_size if last else cast(int, self.lower_projection_hidden_size)

    @classmethod
    def byol(cls, **kwargs: Any) -> "LadderSiameseConfig":
        """Build the config of BYOL (arXiv 2006.07733): one level, a global loss of weight 1 on the last stage.

        Args:
            **kwargs: Any other field, e.g. `backbone_config`.

        Raises:
            ValueError: A level field is given, or another value is wrong.
        """
        for name in ("level_names", "level_losses", "level_weights"):
            if name in kwargs:
                raise ValueError(f"{name} is fixed by LadderSiameseConfig.byol(); use LadderSiameseConfig(...) instead")
        last = cls(backbone_config=kwargs.get("backbone_config")).stages[-1]
        return cls(level_names=[last], level_losses=["global"], level_weights=[1.0], **kwargs)

    @staticmethod
    def _backbone_from_dict(values: dict[str, Any]) -> PreTrainedConfig:
        model_type = values.get("model_type")
        if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
            raise ValueError(
                f"backbone_config: model_type is {model_type!r}, which transformers does not know; give one of its "
                "backbones: resnet, convnext, swin, dinov2, ..."
            )
        try:
            config = with_stages(values)
            return config if isinstance(config, PreTrainedConfig) else AutoConfig.for_model(**values)
        except (StrictDataclassError, ValueError, TypeError) as error:
            raise ValueError(f"backbone_config: {' '.join(str(error).split())}") from error

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from saved values; fields among the keywords replace them, and all are checked together.

        transformers sets the keywords one by one after construction, where nothing checks them.

        Args:
            config_dict: As `to_dict` gives it, or read from config.json. It stays as it is.
            **kwargs: As in transformers.

        Raises:
            ValueError: A value is wrong. The message names the field.
        """
        changed = {name: kwargs.pop(name) for name in _own_fields() if name in kwargs and name != "backbone_config"}
        return super().from_dict({**config_dict, **changed}, **kwargs)

    @classmethod
    def split_fields(cls, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Split the keywords of `from_pretrained` into fields of the config and those that say how to load.

        Raises:
            ValueError: A name is almost that of a field.
        """
        cls._reject_misspelt(kwargs.keys() - {*_own_fields()})
        known = cls()
        own = {name: value for name, value in kwargs.items() if name not in HOW_TO_LOAD and hasattr(known, name)}
        return own, {name: value for name, value in kwargs.items() if name not in own}

    @staticmethod
    def _reject_misspelt(unknown: Iterable[str]) -> None:
        own = _own_fields()
        for name in unknown:
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.85)
            if near:
                raise ValueError(f"{name} is not a field of LadderSiameseConfig; did you mean {near[0]}?")

    def _fill_defaults(self) -> None:
        stages = self.stages
        if self.level_names is None:
            self.level_names = list(stages) if len(stages) < MANY_STAGES else spread(stages)
        self._check_names("level_names")
        if self.level_losses is None:
            self.level_losses = [BOTH] * len(self.level_names)
        if self.level_weights is None:
            self.level_weights = [1.0] * len(self.level_names)
        self._check_size("projection_hidden_size")
        if self.lower_projection_hidden_size is None:
            self.lower_projection_hidden_size = min(1024, self.projection_hidden_size)
        if self.local_projection_hidden_size is None:
            self.local_projection_hidden_size = min(256, self.projection_hidden_size)
        if self.classifier_stages is None:
            self.classifier_stages = [stages[-1]]

    def _check_names(self, name: str) -> None:
        value, stages = getattr(self, name), self.stages
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ValueError(f"{name} must be a non-empty list of stage names, got {value!r}")
        unknown = [stage for stage in value if stage not in stages]
        if unknown:
            raise ValueError(
                f"{name} has {unknown[0]!r}, which is not a stage of the backbone; its stages are {stages}"
            )
        if list(value) != [stage for stage in stages if stage in value]:
            raise ValueError(f"{name} must name each stage once, in the backbone's order {stages}, got {list(value)}")
        setattr(self, name, list(value))

    def _check_size(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

    def check(self) -> None:
        """Check the fields, which may have been set one by one after construction.

        Raises:
            ValueError: A value is wrong. The message names the field.
        """
        self._check_names("level_names")
        self._check_names("classifier_stages")
        names = list(self.level_names or [])
        for name in ("level_losses", "level_weights"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != len(names):
                raise ValueError(
                    f"{name} must be a list with one entry for each of the {len(names)} level_names {names}, "
                    f"got {value!r}"
                )
            setattr(self, name, list(value))
        for kind in self.level_losses or []:
            if not isinstance(kind, str) or not loss_kinds(kind):
                raise ValueError(
                    f"level_losses has {kind!r}; each entry must be one of {', '.join(LOSS_KINDS)}, {BOTH}, or a sum "
                    "of different ones such as global+region"
                )
        for weight in self.level_weights or []:
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ValueError(f"level_weights has {weight!r}; each entry must be a finite number of at least 0")
        if not any(self.level_weights or []):
            raise ValueError("level_weights are all 0: nothing would train; give at least one level a weight")
        for name in (*HEAD_SIZES, "local_grid_size"):
            self._check_size(name)
        for name, choices in (("local_matching", MATCHINGS), ("target", TARGETS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.problem_type not in (None, *PROBLEMS):
            raise ValueError(f"problem_type must be one of {', '.join(PROBLEMS)}, got {self.problem_type!r}")
        if not isinstance(self.detach_stages, bool):
            raise ValueError(f"detach_stages must be true or false, got {self.detach_stages!r}")
        momentum = self.base_momentum
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum <= 1:
            raise ValueError(f"base_momentum must be a number from 0 to 1, got {momentum!r}")


def _own_fields() -> list[str]:
    """The names of the fields that transformers' configs do not have."""
    return [f.name for f in fields(LadderSiameseConfig) if f.name in LadderSiameseConfig.__annotations__]


__all__ = ["LadderSiameseConfig"]
