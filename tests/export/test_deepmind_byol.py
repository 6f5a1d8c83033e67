"""DeepMind's BYOL checkpoint: its own names and classes, its own padding, and nothing of a pickle is run.

Sources: google-deepmind/deepmind-research at f5de0ed, byol/utils/networks.py (`ResNetTorso`, `TinyResNet`),
byol/utils/checkpointing.py (what is pickled: protocol 2, by dill) and byol/byol_experiment.py (`_ByolExperimentState`);
google-deepmind/dm-haiku at f4d858a, haiku/_src/nets/resnet.py (`BlockV1`), batch_norm.py, moving_averages.py ("hidden",
"average", "counter") and data_structures.py (`FlatMapping.__reduce__`).
"""

import os
import pickle
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, pad, relu
from transformers import ResNetBackbone

from ladder_training.cli.entry import main
from ladder_training.errors import UserError
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.models.haiku_pickle import read_haiku_pickle
from ladder_training.models.same_padding import same_padding

NET = "tiny_res_net"
BLOCKS, CHANNELS, STRIDES = (1, 1, 1, 1), (8, 8, 8, 8), (1, 2, 2, 2)  # TinyResNet; its blocks are no bottlenecks
# Every name of the smallest network of networks.py, written out: a change of the reader cannot change them too.
BLOCK_NAMES = ["conv_0", "batchnorm_0", "conv_1", "batchnorm_1", "shortcut_conv", "shortcut_batchnorm"]
NAMES = [f"{NET}/~/initial_conv", f"{NET}/~/initial_batchnorm"] + [
    f"{NET}/~/block_group_{group}/~/block_0/~/{name}" for group in range(4) for name in BLOCK_NAMES
]


def haiku_network(
    generator: np.random.Generator, shortcuts: tuple[int, ...] = (0, 1, 2, 3)
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, state) of a TinyResNet with a projector, as haiku's init makes them."""
    params: dict[str, dict[str, np.ndarray]] = {}
    state: dict[str, dict[str, np.ndarray]] = {}

    def convolution(name: str, size: int, before: int, after: int) -> None:
        weights = generator.normal(0, (2 / (size * size * before)) ** 0.5, (size, size, before, after))
        params[name] = {"w": weights.astype(np.float32)}

    def norm(name: str, width: int) -> None:
        shape = (1, 1, 1, width)
        params[name] = {
            "scale": generator.uniform(0.5, 1.5, shape).astype(np.float32),
            "offset": generator.normal(0, 0.1, shape).astype(np.float32),
        }
        for kind, low in (("mean_ema", -0.2), ("var_ema", 0.5)):
            average = generator.uniform(low, low + 1, shape).astype(np.float32)
            counter = np.array(1000, np.int32)
            state[f"{name}/~/{kind}"] = {"counter": counter, "hidden": average.copy(), "average": average}

    convolution(f"{NET}/~/initial_conv", 7, 3, 64)
    norm(f"{NET}/~/initial_batchnorm", 64)
    before = 64
    for group, after in enumerate(CHANNELS):
        start = f"{NET}/~/block_group_{group}/~/block_0/~/"
        convolution(f"{start}conv_0", 3, before, after)
        norm(f"{start}batchnorm_0", after)
        convolution(f"{start}conv_1", 3, after, after)
        norm(f"{start}batchnorm_1", after)
        if group in shortcuts:
            convolution(f"{start}shortcut_conv", 1, before, after)
            norm(f"{start}shortcut_batchnorm", after)
        before = after
    params["projector/linear"] = {"w": np.ones((8, 4), np.float32), "b": np.zeros(4, np.float32)}
    params["classifier"] = {"w": np.zeros((8, 10), np.float32), "b": np.zeros(10, np.float32)}
    return params, state


def reference_features(params: dict[str, Any], state: dict[str, Any], images: torch.Tensor) -> list[torch.Tensor]:
    """The maps of the four groups by networks.py and BlockV1, with padding="SAME" as TensorFlow defines it."""

    def same(x: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
        size = x.shape[-1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return pad(x, (total // 2, total - total // 2) * 2, value=value)

    def convolution(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        weights = torch.from_numpy(params[name]["w"]).permute(3, 2, 0, 1)
        return conv2d(same(x, weights.shape[-1], stride), weights, stride=stride)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = (
            torch.from_numpy(state[f"{name}/~/{kind}"]["average"]).flatten() for kind in ("mean_ema", "var_ema")
        )
        scale, offset = (torch.from_numpy(params[name][leaf]).flatten() for leaf in ("scale", "offset"))
        return batch_norm(x, mean, var, scale, offset, eps=1e-5)

    x = relu(norm(convolution(images, f"{NET}/~/initial_conv", 2), f"{NET}/~/initial_batchnorm"))
    x = max_pool2d(same(x, 3, 2, float("-inf")), 3, 2)
    maps = []
    for group, stride in enumerate(STRIDES):
        start = f"{NET}/~/block_group_{group}/~/block_0/~/"
        short = norm(convolution(x, f"{start}shortcut_conv", stride), f"{start}shortcut_batchnorm")
        out = relu(norm(convolution(x, f"{start}conv_0", stride), f"{start}batchnorm_0"))
        x = relu(norm(convolution(out, f"{start}conv_1", 1), f"{start}batchnorm_1") + short)
        maps.append(x)
    return maps


class FlatMapping:
    """haiku's, as it is pickled."""

    def __init__(self, content: dict) -> None:
        self.content = {key: FlatMapping(value) if isinstance(value, dict) else value for key, value in content.items()}

    def __reduce__(self) -> Any:
        return FlatMapping, (self.content,)


FlatMapping.__module__ = "haiku._src.data_structures"
FIELDS = "online_params target_params online_state target_state opt_state"
ExperimentState = namedtuple("_ByolExperimentState", FIELDS, module="byol.byol_experiment")
ScheduleState = namedtuple("ScaleByScheduleState", "count", module="optax._src.transform")
LarsState = namedtuple("ScaleByLarsState", "mu", module="byol.utils.optimizers")


def dumped(content: Any, protocol: int) -> bytes:
    """The pickle with the classes' names in their which are not there when it is read."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (FlatMapping, ExperimentState, ScheduleState, LarsState):
            parts = kind.__module__.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                if name not in sys.modules:
                    patch.setitem(sys.modules, name, types.ModuleType(name))
            patch.setattr(sys.modules[kind.__module__], kind.__name__, kind, raising=False)
        return pickle.dumps(content, protocol=protocol)


def write_checkpoint(path: Path, online: Any, protocol: int = 2) -> None:
    """What `Checkpointer.maybe_save_checkpoint` pickles."""
    flat = FlatMapping
    zeros = {module: {leaf: np.zeros_like(value) for leaf, value in row.items()} for module, row in online[0].items()}
    experiment = ExperimentState(
        online_params=flat(online[0]),
        target_params=flat(zeros),
        online_state=flat(online[1]),
        target_state=flat({module: dict(row) for module, row in online[1].items()}),
        opt_state=[LarsState(flat(zeros)), ScheduleState(np.array(7))],
    )
    content = {"experiment_state": experiment, "step": 1000, "rng": np.array([0, 1], np.uint32)}
    path.write_bytes(dumped(content, protocol))


@pytest.mark.parametrize(
    ("protocol", "size", "first"), [(2, 64, "initial_conv"), (2, 57, "initial_conv_1"), (5, 64, "initial_conv")]
)
def test_the_checkpoint_gives_deepminds_features(protocol: int, size: int, first: str, tmp_path: Path, capsys) -> None:
    params, state = haiku_network(np.random.default_rng(0))
    assert [name for name in params if name.startswith(NET)] == NAMES
    stored = {name.replace("initial_conv", first): row for name, row in params.items()}
    write_checkpoint(tmp_path / "pretrain.pkl", (stored, state), protocol)
    assert main(["import", str(tmp_path / "pretrain.pkl"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "DeepMind names below tiny_res_net" in said and "licence: cc-by-nc-4.0" in said and "SAME" in said

    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    wanted = reference_features(params, state, images)
    with torch.inference_mode():
        found = load_backbone(str(tmp_path / "out"), trained_padding=True)(images)
        native = ResNetBackbone.from_pretrained(str(tmp_path / "out")).eval()(images).feature_maps
    assert [tuple(value.shape) for value in found.values()] == [tuple(value.shape) for value in wanted]
    for value, expected in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    if size % 2 == 0:  # the note is true: without the padding the features are others
        assert (native[-1] - wanted[-1]).abs().max() > 0.05


def test_same_padding_is_tensorflows() -> None:
    """The table of TensorFlow's guide, for 224 pixels and for odd sides."""
    assert same_padding(224, 7, 2) == (2, 3) and same_padding(112, 3, 2) == (0, 1)
    assert same_padding(57, 3, 2) == (1, 1) and same_padding(5, 1, 2) == (0, 0)


def test_the_padding_is_said_with_a_result(tmp_path: Path, capsys) -> None:
    write_checkpoint(tmp_path / "pretrain.pkl", haiku_network(np.random.default_rng(0)))
    assert main(["import", str(tmp_path / "pretrain.pkl"), "--output", str(tmp_path / "out")]) == 0
    assert main(["evaluate", "knn", "--model", str(tmp_path / "out"), "--dataset", "digits", "--no-untrained"]) == 0
    assert "note: padded as TensorFlow's SAME does" in capsys.readouterr().out


def test_a_network_without_its_shortcuts_is_refused(tmp_path: Path, capsys) -> None:
    write_checkpoint(tmp_path / "pretrain.pkl", haiku_network(np.random.default_rng(0), shortcuts=(1, 2, 3)))
    assert main(["import", str(tmp_path / "pretrain.pkl"), "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert "has no tiny_res_net/~/layer1.0.downsample" in line and not (tmp_path / "out").exists()


class Runs:
    """A pickle that would run a function of this list when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("function", "words", "named"),
    [
        (os.mkdir, ("PLACE",), "posix.mkdir"),
        (eval, ("__import__('os').mkdir('PLACE')",), "builtin"),
        (getattr, (os, "sep"), "builtin"),
        (np.load, ("PLACE",), "numpy"),
    ],
)
def test_a_pickle_that_would_run_code_is_refused(
    protocol: int, function: Any, words: tuple, named: str, tmp_path: Path, capsys
) -> None:
    place = tmp_path / "made"
    arguments = [word.replace("PLACE", str(place)) if isinstance(word, str) else "text" for word in words]
    content = {"experiment_state": {"online_params": {"a": Runs(function, *arguments)}}}
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert main(["import", str(tmp_path / "evil.pkl"), "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert "would call" in line and named in line and "nothing in it was run" in line
    assert not place.exists() and not (tmp_path / "out").exists()


def test_allowed_names_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    """A pickle's BUILD sets attributes of what it made: of a class that would last for the next file."""
    for module, name in (("numpy", "dtype"), ("_codecs", "encode"), ("numpy.core.multiarray", "_reconstruct")):
        build = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"N}X\x05\x00\x00\x00valueK\x01s\x86b."
        (tmp_path / "build.pkl").write_bytes(build)
        with pytest.raises(UserError, match="is not read"):
            read_haiku_pickle(tmp_path / "build.pkl")


def test_what_is_no_such_pickle_is_one_line(tmp_path: Path) -> None:
    for name, content in {
        "objects": pickle.dumps({"a": np.array([{}, 1], dtype=object)}),
        "text": b"no pickle",
        "half": pickle.dumps({"a": np.zeros(100)})[:50],
        "empty": b"",
        "numbers": pickle.dumps({"a": 1}),
    }.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            read_haiku_pickle(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value), name


def test_big_ends_and_columns_first_are_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (2, 5):
        for array in (values.astype(">f4"), np.asfortranarray(values), values[:, ::-1][:, ::-1]):
            (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": {"y": array}}, protocol=protocol))
            np.testing.assert_array_equal(read_haiku_pickle(tmp_path / "a.pkl")["x/y"].numpy(), values)
