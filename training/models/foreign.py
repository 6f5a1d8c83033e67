"""ResNets of other libraries (torchvision, timm, lightly, DeepMind's BYOL) as native transformers backbones."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .haiku_pickle import SUFFIXES, read_haiku_pickle

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "teacher", "student")
_AVERAGED = re.compile(r"momentum|target|teacher|ema|key_encoder|encoder_k")
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_HEADS = re.compile(r"(fc|head|classifier|last_linear)\.")
_BATCH_COUNT = "num_batches_tracked"
SAME_PADDING = (
    "DeepMind's BYOL pads as TensorFlow's SAME does: one pixel less above and left wherever maps shrink; kNN, linear "
    "probe, embed and explore do so too; transformers' own classes, training, fine-tuning and exports pad alike on "
    "both sides: there its features differ"
)
DEEPMIND_LICENCE = "cc-by-nc-4.0"
SYMMETRIC, SAME = "symmetric", "same"


@dataclass
class ForeignResNet:
    """A backbone that was read from a file of another library.

    Attributes:
        backbone: A transformers `ResNetBackbone` in eval mode.
        source: "torchvision or timm names", "lightly names" or "DeepMind names".
        prefix: What stood before the names.
        left_out: Tensors that are no part of the backbone.
        padding: "symmetric", as transformers pads, or "same", as the network was trained with TensorFlow's rule.
        licence: Licence of the weights, where the source tells it; else None.
        notes: What a user must know.
    """

    backbone: Any
    source: str
    prefix: str
    left_out: list[str]
    padding: str = SYMMETRIC
    licence: str | None = None
    notes: list[str] = field(default_factory=list)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors without running code from it: safetensors, a PyTorch file, .npz, or a pickle of arrays.

    Raises:
        UserError: there is no such file, or it holds more than tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix in SUFFIXES:
        return read_haiku_pickle(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        if path.suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(file[name]) for name in file.files}
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, safetensors and numpy raise errors of many kinds for a file that is not theirs
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path} cannot be read as weights only ({reason}); give .safetensors, .npz, or a PyTorch file of tensors"
        ) from error
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    named = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name")
    return tensors


def convert_resnet(tensors: dict[str, Tensor], prefix: str | None, rename: Any) -> ForeignResNet:
    """Find the ResNet among named tensors, and make the transformers backbone of it.

    Args:
        tensors: As read from a file.
        prefix: What stands before the backbone's names; None finds it.
        rename: From a name of transformers' ResNet to torchvision's.

    Raises:
        UserError: there is no plain ResNet, or there are several.
    """
    from transformers import ResNetBackbone, ResNetConfig

    source, found, state = _one_encoder(tensors, prefix)
    left_out = [name for name in tensors if not name.startswith(found)]
    heads = [name for name in state if _HEADS.match(name)]
    left_out += [found + name for name in heads]
    state = {name: value for name, value in state.items() if name not in heads}
    depths = [_depth(state, stage) for stage in range(1, 5)]
    if 0 in depths:
        raise UserError("this is no plain ResNet: it has fewer than four stages of blocks")
    bottleneck = "layer1.0.conv3.weight" in state
    last = "conv3" if bottleneck else "conv2"
    config = ResNetConfig(
        num_channels=state["conv1.weight"].shape[1],
        embedding_size=state["conv1.weight"].shape[0],
        hidden_sizes=[state[f"layer{n}.0.{last}.weight"].shape[0] for n in range(1, 5)],
        depths=depths,
        layer_type="bottleneck" if bottleneck else "basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    backbone = ResNetBackbone(config).eval()
    own = backbone.state_dict()
    names = {name: rename(name) for name in own}
    unknown = sorted(set(state) - set(names.values()))
    missing = [name for name in names.values() if name not in state and not name.endswith(_BATCH_COUNT)]
    wrong = [name for mine, name in names.items() if name in state and state[name].shape != own[mine].shape]
    if unknown or missing or wrong:
        first = (unknown or missing or wrong)[0]
        kind = "an extra" if unknown else "no" if missing else f"a {tuple(state[first].shape)}"
        raise UserError(
            f"this is no plain ResNet: it has {kind} {found}{first}; deep stems, attention and the like are not read"
        )
    backbone.load_state_dict({mine: state[name] for mine, name in names.items() if name in state}, strict=False)
    result = ForeignResNet(backbone, source, found, left_out)
    if source == "DeepMind names":
        result.licence, result.padding, result.notes = DEEPMIND_LICENCE, SAME, [SAME_PADDING]
    if bottleneck:
        result.notes.append("taken as v1.5: the stride is in the 3x3 convolution, as in torchvision and timm")
    return result


def _depth(state: dict[str, Tensor], stage: int) -> int:
    """Number of blocks of a stage; 0 without blocks."""
    matches = (re.match(rf"layer{stage}\.(\d+)\.", name) for name in state)
    return max((1 + int(match[1]) for match in matches if match), default=0)


def _one_encoder(tensors: dict[str, Tensor], prefix: str | None) -> tuple[str, str, dict[str, Tensor]]:
    """The kind of names, the prefix, and the encoder's tensors by torchvision's names."""
    haiku = _from_haiku(tensors, prefix)
    if haiku is not None:
        return "DeepMind names", haiku[0], haiku[1]
    found: dict[str, str] = {}
    for kind, stem, block in (
        ("torchvision or timm names", "conv1.weight", "layer1.0.conv1.weight"),
        ("lightly names", "0.weight", "4.0.conv1.weight"),
    ):
        for name in tensors:
            start = name.removesuffix(block)
            if name.endswith(block) and start + stem in tensors and (not start or start.endswith(".")):
                found[start] = kind
    if prefix is not None:
        found = {start: kind for start, kind in found.items() if start.rstrip(".") == prefix.rstrip(".")}
    trained = {start: kind for start, kind in found.items() if not _AVERAGED.search(start)} or found
    if len(trained) != 1:
        held = " or ".join(sorted(start.rstrip(".") for start in trained))
        raise UserError(
            f"there are several ResNets in this file: name one with --prefix {held}"
            if trained
            else "there is no ResNet in this file: neither conv1 and layer1 (torchvision, timm), 0 and 4 (lightly), "
            "nor initial_conv and block_group_0 (DeepMind)"
        )
    start, kind = next(iter(trained.items()))
    state = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    if kind == "lightly names":
        parts = {name: name.partition(".") for name in state}
        state = {f"{_SEQUENTIAL.get(a, a)}.{b}": state[name] for name, (a, _, b) in parts.items()}
    return kind, start, state


def _from_haiku(tensors: dict[str, Tensor], prefix: str | None) -> tuple[str, dict[str, Tensor]] | None:
    """Tensors by the names of DeepMind's ResNet (haiku), converted to torchvision's names and order of dimensions.

    Raises:
        UserError: there are several such networks.
    """
    # haiku adds _1 where a name was taken: the first version of their network built its first layer twice.
    stems = (re.fullmatch(r"(.*?)initial_conv(_1)?/w", name) for name in tensors)
    found = {match[1] for match in stems if match}
    if prefix is not None:
        found = {start for start in found if start.rstrip("/~") == prefix.rstrip("/~")}
    trained = {start for start in found if not _AVERAGED.search(start)} or found
    if not trained:
        return None
    if len(trained) > 1:
        held = " or ".join(sorted(start.rstrip("/~") for start in trained))
        raise UserError(f"there are several ResNets in this file: name one with --prefix {held}")
    start = trained.pop()
    state: dict[str, Tensor] = {}
    leaves = {"scale": "weight", "offset": "bias", "mean_ema/average": "running_mean", "var_ema/average": "running_var"}
    for name, value in tensors.items():
        if not name.startswith(start):
            continue
        key = re.sub(r"^(initial_conv|initial_batchnorm)_1/", r"\1/", name.removeprefix(start).replace("/~/", "/"))
        key = re.sub(r"^block_group_(\d+)/block_(\d+)/", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.", key)
        key = key.replace("initial_conv/", "conv1/").replace("initial_batchnorm/", "bn1/")
        key = key.replace("shortcut_conv/", "downsample.0/").replace("shortcut_batchnorm/", "downsample.1/")
        key = re.sub(
            r"(conv|batchnorm)_(\d)/", lambda m: f"{'bn' if m[1] == 'batchnorm' else 'conv'}{int(m[2]) + 1}/", key
        )
        module, _, leaf = key.partition("/")
        if leaf == "w" and value.ndim == 4:
            state[f"{module}.weight"] = value.permute(3, 2, 0, 1).contiguous()
        elif leaf in leaves:
            state[f"{module}.{leaves[leaf]}"] = value.reshape(-1)
    return start, state
