"""DeepMind's BYOL checkpoints: pickles of dictionaries of arrays, read without running anything that they name.

Names and classes as in google-deepmind/deepmind-research, byol/utils/checkpointing.py and byol/byol_experiment.py, and
in dm-haiku, haiku/_src/data_structures.py.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

SUFFIXES = (".pkl", ".pickle")
_KINDS = frozenset("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1".split())  # noqa: SIM905
_STATE_FIELDS = ("online_params", "target_params", "online_state", "target_state")
_UNUSED_PACKAGES = ("byol", "optax", "jax", "jaxlib")  # states of the optimizer and of random numbers
_MOST_DEPTH = 20


class _Inert:
    """Base of everything that a pickle can make here: to build one runs no code that the file brings or names.

    `__setstate__` takes what a pickle would otherwise set as attributes.
    """

    def __setstate__(self, state: Any) -> None:
        return None


class _Unused(_Inert):
    """An object of the file that holds no weights of the network."""

    def __new__(cls, *_: Any, **__: Any) -> "_Unused":
        return super().__new__(cls)


class _Mapping(dict[Any, Any], _Inert):
    """haiku's FlatMapping and frozendict: made from the dictionary that they hold."""


class _Experiment(_Inert):
    """BYOL's `_ByolExperimentState`, a named tuple of parameters and states."""

    fields: dict[str, Any]

    def __new__(cls, *values: Any) -> "_Experiment":  # of a named tuple, a pickle calls only this
        made = super().__new__(cls)
        made.fields = dict(zip(_STATE_FIELDS, values, strict=False))
        return made


class _Bytes(bytes, _Inert):
    """Bytes, which the second version of pickle writes as text in latin1."""

    def __new__(cls, text: Any = b"", encoding: str = "latin1") -> "_Bytes":
        if isinstance(text, str) and encoding in ("latin1", "latin-1"):
            text = text.encode("latin1")
        if not isinstance(text, bytes):
            raise pickle.UnpicklingError("bytes that are no text")
        return super().__new__(cls, text)


class _Type(_Inert):
    """numpy's dtype, of plain numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code).lstrip("<>=|"), "<"
        if self.code not in _KINDS:
            raise pickle.UnpicklingError(f"an array of {str(code)[:20]!r}, which are no plain numbers")

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Class(_Inert):
    """numpy's class ndarray, which is named but never made."""


class _Array(_Inert):
    """An array as numpy pickles it: made empty, then filled by its state (version, shape, dtype, order, bytes)."""

    value: np.ndarray | None = None

    def __init__(self, *_: Any) -> None:
        return None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns_first, data = state
        self.value = _array(data, kind, shape, "F" if columns_first else "C")


class _Buffer(_Array):
    """An array as numpy pickles it since version 5 of pickle: bytes, dtype, shape, order."""

    def __init__(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        self.value = _array(data, kind, shape, "F" if order == "F" else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of these bytes, in the byte order of this machine."""
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not of bytes")
    array = np.frombuffer(bytes(data), f"{kind.order}{kind.code}").reshape(shape, order=order)
    return np.array(array, array.dtype.newbyteorder("="), order="C")  # a copy, which may be written to


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], type] = {
    **{(module, "_reconstruct"): _Array for module in _NUMPY},
    **{(module, "scalar"): _Unused for module in _NUMPY},
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("numpy", "ndarray"): _Class,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Bytes,
    ("__builtin__", "bytes"): _Bytes,
    ("builtins", "bytes"): _Bytes,
    ("byol.byol_experiment", "_ByolExperimentState"): _Experiment,
    **{("haiku._src.data_structures", name): _Mapping for name in ("FlatMapping", "FlatMap", "frozendict")},
}


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, dictionaries, lists and numbers. Anything else that a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None and module.partition(".")[0] in _UNUSED_PACKAGES:
            found = _Unused
        if found is None:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return found


def read_haiku_pickle(path: Path) -> dict[str, Tensor]:
    """Read the arrays of a pickle by names with slashes, such as "res_net50/~/initial_conv/w".

    Of a BYOL checkpoint the online network's parameters and statistics have these names; those of the target network
    begin with "target_params" or "target_state".

    Raises:
        UserError: it is no pickle, or it names anything but arrays and the classes of such a checkpoint; nothing that
            it names was run.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except Exception as error:  # a pickle that is not whole, or not one, raises errors of many kinds
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{path} is not read ({reason}); nothing in it was run: of a pickle only dictionaries of arrays are taken"
        ) from error
    state = content.get("experiment_state", content) if isinstance(content, Mapping) else content
    parts = state.fields if isinstance(state, _Experiment) else state
    online = {}
    if isinstance(parts, Mapping) and "online_params" in parts:
        online = {name: parts[name] for name in ("online_params", "online_state") if name in parts}
        parts = {name: value for name, value in parts.items() if name not in online}
    named = [entry for part in online.values() for entry in _flat(part, "")] + list(_flat(parts, ""))
    tensors = {name: torch.from_numpy(array) for name, array in named}
    if not tensors:
        raise UserError(f"{path} holds no arrays by name")
    return tensors


def _flat(value: Any, start: str, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of nested dictionaries, with the joined names that lead to them."""
    if isinstance(value, _Array) and value.value is not None:
        yield start, value.value
    elif isinstance(value, Mapping) and depth < _MOST_DEPTH:
        for name, inner in value.items():
            yield from _flat(inner, f"{start}/{name}" if start else str(name), depth + 1)
