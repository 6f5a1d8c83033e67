"""ConvNeXt, Swin and DINOv2 as timm stores them: architecture, arguments and names of the tensors.

The norm that transformers puts behind the last stage is timm's last norm, so that timm's pooled features are the
average over the last stage's map.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .keys import NotHeld

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class TimmModel:
    """A backbone in timm's form.

    Attributes:
        architecture: Name of a timm model; `arguments` change its sizes.
        arguments: Of timm's model.
        state: Tensors by timm's names.
        first: Name of the first layer.
        classifier: Name of the classifier.
        notes: What differs from the original.
    """

    architecture: str
    arguments: dict[str, Any]
    state: dict[str, Any]
    first: str
    classifier: str
    size: int | None = None
    notes: list[str] = field(default_factory=list)


def convnext(backbone: "PreTrainedModel", size: int) -> TimmModel:
    """ConvNeXt of transformers in timm's form."""
    config = backbone.config
    names = (
        (r"embeddings\.patch_embeddings\.", "stem.0."),
        (r"embeddings\.layernorm\.", "stem.1."),
        (r"encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
        (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
        (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv", r"stages.\1.blocks.\2.conv_dw"),
        (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm", r"stages.\1.blocks.\2.norm"),
        (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv(\d)", r"stages.\1.blocks.\2.mlp.fc\3"),
        (rf"hidden_states_norms\.{config.stage_names[-1]}\.", "norm_pre."),
    )
    _refuse(config, {"hidden_act": "gelu", "patch_size": 4})
    state = _renamed(backbone, names, dropped=("hidden_states_norms.",))
    arguments = {"depths": list(config.depths), "dims": list(config.hidden_sizes), "head_norm_first": True}
    if not any(name.endswith("gamma") for name in state):
        arguments["ls_init_value"] = None
    return TimmModel("convnext_tiny", arguments, state, "stem.0", "head.fc")


def swin(backbone: "PreTrainedModel", size: int) -> TimmModel:
    """Swin of transformers in timm's form, for images of one size."""
    config = backbone.config
    _refuse(config, {"hidden_act": "gelu", "use_absolute_embeddings": False})
    # timm counts the layer that halves a map to the stage behind it, transformers to the one before.
    state = {}
    for name, tensor in _with_joined_attention(backbone).items():
        name = name.removeprefix("swin.")
        moved = re.match(r"encoder\.layers\.(\d+)\.downsample\.(.*)", name)
        if moved:
            state[f"layers.{int(moved[1]) + 1}.downsample.{moved[2]}"] = tensor
            continue
        name = re.sub(r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj.", name)
        name = re.sub(r"^embeddings\.norm\.", "patch_embed.norm.", name)
        name = re.sub(r"^encoder\.layers", "layers", name)
        name = name.replace("attention.relative_position_bias.", "attn.").replace("attention.", "attn.")
        name = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        if name.startswith("hidden_states_norms."):
            if name.split(".")[1] != config.stage_names[-1]:
                continue
            name = f"norm.{name.split('.')[-1]}"
        elif name.startswith("layernorm.") or name.endswith("relative_position_index"):
            continue
        state[name] = tensor
    arguments = {
        "img_size": size,
        "patch_size": config.patch_size,
        "window_size": config.window_size,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
    }
    return TimmModel("swin_tiny_patch4_window7_224", arguments, state, "patch_embed.proj", "head.fc", size)


def dinov2(backbone: "PreTrainedModel", size: int) -> TimmModel:
    """DINOv2 of transformers in timm's form; the pooled features are those of the patches, not of the class token."""
    config = backbone.config
    _refuse(config, {"hidden_act": "gelu", "use_swiglu_ffn": False, "apply_layernorm": True})
    names = (
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
        (r"encoder\.layer\.(\d+)\.attention\.", r"blocks.\1.attn."),
        (r"encoder\.layer\.", "blocks."),
        (r"layernorm\.", "norm."),
    )
    state = _renamed(backbone, names, dropped=("embeddings.mask_token",), joined=True)
    arguments = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.mlp_ratio,
        "init_values": 1.0,
        "global_pool": "avg",
        "fc_norm": False,
        "final_norm": True,
        "dynamic_img_size": True,
    }
    notes = [
        f"positions are those of {config.image_size} pixels; at other sizes timm and transformers resize them apart"
    ]
    found = TimmModel("vit_small_patch14_dinov2", arguments, state, "patch_embed.proj", "head", config.image_size)
    found.notes = notes
    return found


def _refuse(config: Any, expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if getattr(config, name, value) != value:
            raise NotHeld(f"timm's {config.model_type} has no {name}={getattr(config, name)!r}")


def _renamed(
    backbone: "PreTrainedModel",
    names: tuple[tuple[str, str], ...],
    dropped: tuple[str, ...] = (),
    joined: bool = False,
) -> dict[str, Any]:
    """The tensors by other names; those that start with a dropped prefix and match no pattern are left out."""
    source = _with_joined_attention(backbone) if joined else backbone.state_dict()
    state = {}
    for name, tensor in source.items():
        match = next(((pattern, new) for pattern, new in names if re.match(pattern, name)), None)
        if match is not None:
            state[re.sub(f"^{match[0]}", match[1], name)] = tensor
        elif not name.startswith(dropped):
            raise NotHeld(f"the backbone has a tensor {name!r} that timm does not know")
    return state


def _with_joined_attention(backbone: "PreTrainedModel") -> dict[str, Any]:
    """The tensors with query, key and value joined to one, and the projection called as timm calls it."""
    import torch

    source = backbone.state_dict()
    state = {}
    for name, tensor in source.items():
        if re.search(r"\.[kv]_proj\.", name):
            continue
        if ".q_proj." in name:
            parts = [source[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            state[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
        else:
            state[name.replace(".o_proj.", ".proj.")] = tensor
    return state


FAMILIES = {"convnext": convnext, "swin": swin, "dinov2": dinov2}
