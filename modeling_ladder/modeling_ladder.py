"""Ladder Siamese backbones: features of every stage, a backbone for transformers' heads, and an image classifier.

The pretraining model is in `modeling_ladder_pretraining.py`. All models store the online network under `backbone.`, so
a pretraining checkpoint, a Ladder model and a published native backbone can be loaded into each other.
"""

import os
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.models.auto import AutoBackbone
from transformers.utils.generic import can_return_tuple

from .checking import check_before_loading
from .configuration_ladder import LadderSiameseConfig
from .conversion import (
    copy_weights,
    is_ladder_config,
    load_native_backbone,
    read_config_dict,
    require_ladder_config,
    split_hub_kwargs,
)
from .heads import LadderHead
from .labels import check_labels


class LadderSiamesePreTrainedModel(PreTrainedModel):
    """Base class of all Ladder Siamese models: loading, initialisation and memory format."""

    config: LadderSiameseConfig
    base_model_prefix = "ladder_siamese"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    channels_last = True
    _keep_in_fp32_modules_strict = ("target",)
    _keys_to_ignore_on_load_unexpected: tuple[str, ...] | None = (r"^projectors\.", r"^predictors\.", r"^target\.")

    def __init__(self, config: LadderSiameseConfig) -> None:
        if isinstance(config, PreTrainedConfig):  # transformers refuses all else
            require_ladder_config(config, type(self).__name__)
            config.check()  # fields may have been set since the config was made
        super().__init__(config)

    @property
    def base_model(self) -> nn.Module:
        """The online backbone: all but the heads. Freezing it leaves a classifier's last layer trainable."""
        return cast(nn.Module, self.backbone)

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the backbone's layers can be computed again in the backward pass (ResNet's cannot)."""
        return bool(self.backbone.supports_gradient_checkpointing)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Use torch's defaults, because transformers' normal(0, 0.02) would start a 4096-wide head almost at zero."""
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)

    def _build_backbone(self, config: LadderSiameseConfig) -> PreTrainedModel:
        return AutoBackbone.from_config(config.backbone_config)

    @cached_property
    def is_convolutional(self) -> bool:
        """Whether the backbone consists of convolutions. A patch embedding alone does not count.

        The modules are looked through once; every forward asks.
        """
        kernels = [m.kernel_size for m in self.backbone.modules() if isinstance(m, nn.Conv2d)]
        return sum(max(size) > 1 for size in kernels) > 1

    def set_channels_last(self, wanted: bool) -> None:
        """Turn the channels-last memory format of a convolutional backbone and its inputs on (the default) or off.

        Results agree up to rounding. Which format is faster depends on the device.

        Args:
            wanted: True for channels-last, False for contiguous memory.
        """
        self.channels_last = wanted
        self._set_memory_format()

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last and self.is_convolutional else torch.contiguous_format

    def _finish(self) -> None:
        """Restore after construction and after loading what neither keeps: memory format and frozen parts."""
        if self.is_convolutional:
            self._set_memory_format()

    def _set_memory_format(self) -> None:
        """Lay out every tensor; those that accelerate keeps on the disk until they are used stay there."""
        if not (hasattr(self, "hf_device_map") and any(value.is_meta for value in self.parameters())):
            self.to(memory_format=self._memory_format)

    def _prepare(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        return images.to(dtype).contiguous(memory_format=self._memory_format)

    def _stage_maps(self, backbone: PreTrainedModel, images: Tensor) -> dict[str, Tensor]:
        images = self._prepare(images, next(backbone.parameters()).dtype)
        maps = backbone(pixel_values=images, output_hidden_states=False, return_dict=True).feature_maps
        return dict(zip(backbone.out_features, maps, strict=True))

    def feature_maps(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Compute the feature map of every stage of the online backbone.

        Args:
            pixel_values: (batch, channels, height, width).

        Returns:
            Stage name to (batch, channels of the stage, height, width), first stage first. The stem is included only
            if the backbone's `out_features` contain it.
        """
        return self._stage_maps(self.backbone, pixel_values)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a Ladder model, a pretraining checkpoint, or a published native backbone, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub name.
            *model_args: Positional arguments of the model's constructor.
            **kwargs: As in transformers (`revision`, `subfolder`, `token`, `dtype`, `variant`, `output_loading_info`,
                ...), or fields of the config.

        Returns:
            The model in eval mode; with `output_loading_info=True`, a pair of the model and the loading info.

        Raises:
            ValueError: The weights are pickles, truncated, or of other shapes than the config says, or the config has
                an unreasonable value. The message names the tensor or the field. Nothing was loaded.
        """
        if pretrained_model_name_or_path is not None:
            if not is_ladder_config(read_config_dict(pretrained_model_name_or_path, kwargs)):
                return cls._from_native(pretrained_model_name_or_path, **kwargs)
            hub, _ = split_hub_kwargs(kwargs)
            check_before_loading(pretrained_model_name_or_path, cls, variant=kwargs.get("variant"), **hub)
        want_info = kwargs.pop("output_loading_info", False)
        kwargs["output_loading_info"] = True
        model, info = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        lost = sorted(key for key in info["missing_keys"] if key.startswith("backbone."))
        if lost:
            raise ValueError(
                f"{pretrained_model_name_or_path}: the weights lack {lost[0]!r}, so no backbone was loaded"
            )
        model._after_loading(set(info["missing_keys"]))
        return (model, info) if want_info else model

    @classmethod
    def _from_native(cls, name: Any, **kwargs: Any) -> Any:
        want_info = kwargs.pop("output_loading_info", False)
        config = kwargs.pop("config", None)
        if isinstance(config, (str, os.PathLike)):
            config = LadderSiameseConfig.from_pretrained(config)
        own, load = LadderSiameseConfig.split_fields(kwargs)
        if config is not None:
            require_ladder_config(config, cls.__name__)
            if own:
                raise ValueError(f"{min(own)} is given beside a config; set it in the config, or leave config out")
        backbone, info = load_native_backbone(name, output_loading_info=True, **load)
        places = sorted({str(value.device) for value in backbone.parameters()})
        if len(places) > 1 or "meta" in places:
            raise ValueError(
                f"device_map puts {name} in several places ({', '.join(places)}; meta is the disk): a native backbone "
                "goes to one device; name it, as in device_map='cpu', or save_pretrained it as a Ladder model first"
            )
        if config is None:
            config = LadderSiameseConfig(backbone_config=backbone.config, **own)
        model = cls(config)
        copy_weights(backbone, model.backbone, "give a config with this backbone's backbone_config, or no config")
        model.to(device=backbone.device, dtype=backbone.dtype)
        if "attn_implementation" in load:
            model.set_attn_implementation(load["attn_implementation"])
        model.name_or_path = str(name)
        model._after_loading({"target."})
        model.eval()
        own_parts = ("backbone.", "target.")  # the target is a copy of the online network
        info["missing_keys"] = {name for name in model.state_dict() if not name.startswith(own_parts)}
        return (model, info) if want_info else model

    def _after_loading(self, missing: set[str]) -> None:
        """Restore what loading does not keep.

        Args:
            missing: Names of the tensors that the checkpoint does not contain.
        """
        del missing
        self._finish()


class LadderSiameseModel(LadderSiamesePreTrainedModel):
    """The online backbone, which returns the features of every stage."""

    def __init__(self, config: LadderSiameseConfig) -> None:
        super().__init__(config)
        self.backbone = self._build_backbone(config)
        self.post_init()
        self._finish()

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutputWithPoolingAndNoAttention | tuple[Any, ...]:
        """Compute the features of a batch of images.

        Args:
            pixel_values: (batch, channels, height, width), normalised.
            output_hidden_states: Also return the map of every stage. None takes the config's value.
            return_dict: Return an output object and not a tuple. None takes the config's value.

        Returns:
            `last_hidden_state` (batch, channels, height, width) and `pooler_output` (batch, channels) of the last
            stage. With `output_hidden_states`, also `hidden_states`, the maps of all stages, first stage first.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        maps = tuple(self.feature_maps(pixel_values).values())
        output = BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=maps[-1],
            pooler_output=maps[-1].mean(dim=(2, 3)),
            hidden_states=maps if output_hidden_states else None,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()


class LadderSiameseBackbone(BackboneMixin, LadderSiamesePreTrainedModel):
    """A backbone for transformers' heads (UperNet, DETR, Mask2Former, ...).

    It returns the maps of all stages, unless `out_features` or `out_indices` of the config select some.
    """

    has_attentions = False

    def __init__(self, config: LadderSiameseConfig) -> None:
        super().__init__(config)
        inner = cast(PreTrainedConfig, config.backbone_config)
        if "stem" in config.out_features:
            inner = type(inner).from_dict({**inner.to_dict(), "out_features": config.stage_names, "out_indices": None})
        self.backbone = AutoBackbone.from_config(inner)
        channels = self.backbone.out_feature_channels
        self.num_features = [channels[name] for name in config.stage_names]
        # The backbone records its own hidden states. `post_init` of a BackboneMixin would hook its layers once more,
        # and each state would then be recorded twice: wrong maps of a DINOv2, an error of a ConvNeXt.
        self._output_capturing_hooks_installed = True
        self.post_init()
        self._finish()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput:
        """Compute feature maps as transformers' backbones do.

        Args:
            pixel_values: (batch, channels, height, width), normalised.
            output_hidden_states: Also return the hidden states of the transformers backbone.
            return_dict: Return an output object and not a tuple. None takes the config's value.
            **kwargs: Ignored.

        Returns:
            `feature_maps` of `out_features`, each (batch, channels, height, width), first stage first. With
            `output_hidden_states`, also `hidden_states` as that backbone gives them: of a ResNet the stem's and every
            stage's map, of a ViT the tokens after each layer.

        Raises:
            ValueError: `out_features` was set after construction to a stage that is not computed (the stem).
        """
        images = self._prepare(pixel_values, next(self.backbone.parameters()).dtype)
        output = self.backbone(pixel_values=images, output_hidden_states=output_hidden_states, return_dict=True)
        maps = dict(zip(self.backbone.out_features, output.feature_maps, strict=True))
        absent = [name for name in self.out_features if name not in maps]
        if absent:
            raise ValueError(
                f"out_features has {absent[0]!r}, which this model does not compute; give it in from_pretrained or in "
                f"the config: out_features={self.out_features}"
            )
        return BackboneOutput(
            feature_maps=tuple(maps[name] for name in self.out_features),
            hidden_states=output.hidden_states,
            attentions=None,
        )


class LadderSiameseForImageClassification(LadderSiamesePreTrainedModel):
    """A linear classifier on the pooled features of `config.classifier_stages`, concatenated."""

    def __init__(self, config: LadderSiameseConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.loss_type = "ForImageClassification"  # transformers takes it from the name of the class
        self.backbone = self._build_backbone(config)
        width = sum(self.backbone.out_feature_channels[name] for name in config.classifier_stages or [])
        self.classifier = nn.Linear(width, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()
        self._finish()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention | tuple[Any, ...]:
        """Compute the class scores of a batch of images.

        Args:
            pixel_values: (batch, channels, height, width), normalised.
            labels: int64 (batch,), from 0 to num_labels - 1; -100 is left out. Others for other problems, see
                `problem_type` of the config and `labels.check_labels`.
            output_hidden_states: Also return the map of every stage. None takes the config's value.
            return_dict: Return an output object and not a tuple. None takes the config's value.

        Returns:
            `logits` (batch, num_labels) and, with labels, the mean loss: cross-entropy, or by `problem_type` binary
            cross-entropy of several classes per image, or squared error of regression.

        Raises:
            ValueError: The labels do not fit the classes.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        maps = self.feature_maps(pixel_values)
        pooled = torch.cat([maps[name].mean(dim=(2, 3)) for name in self.config.classifier_stages or []], dim=1)
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(check_labels(labels, logits, self.config), logits, self.config)
        output = ImageClassifierOutputWithNoAttention(
            loss=loss, logits=logits, hidden_states=tuple(maps.values()) if output_hidden_states else None
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()


__all__ = [
    "LadderHead",
    "LadderSiameseBackbone",
    "LadderSiameseForImageClassification",
    "LadderSiameseModel",
    "LadderSiamesePreTrainedModel",
]
