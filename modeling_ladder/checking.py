"""Check a checkpoint before any of it is loaded: no pickles, complete files, matching shapes, reasonable sizes.

A checkpoint from the Hub is somebody else's file. These checks read only config.json and the headers of the safetensors
files. They take milliseconds and little memory, and they refuse a checkpoint before its code runs or a model is built.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .timm_configs import with_stages

CONFIG = "config.json"
MAX_NUMBER = 1_000_000
MAX_ENTRIES = 100_000
MAX_DEPTH = 2_000
MAX_PARAMETERS = 4_000_000_000
MAX_HEADER = 16 * 2**20
MAX_JSON = 64 * 2**20
# Fields that make transformers download code (kernels) or another model; no published backbone needs them.
IMPLEMENTATIONS = re.compile(r"_?(attn|experts)_implementation(_internal)?")
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
DTYPES = ("dtype", "torch_dtype")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}
BYTES |= {"F64": 8, "I64": 8, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8}
Shapes = dict[str, tuple[int, ...]]


def check_before_loading(
    name_or_path: str | os.PathLike[str],
    model_class: type | None = None,
    *,
    variant: str | None = None,
    **hub_kwargs: Any,
) -> Path | None:
    """Check the config and the weights of a folder or a Hub repo before a model is built.

    Args:
        name_or_path: Folder or Hub name.
        model_class: Class that will be built from the saved config. The shapes of its tensors are compared with the
            file's. None means the backbone class of a native transformers config.
        variant: Of the weights' files, as in `from_pretrained`: "fp16" means model.fp16.safetensors.
        **hub_kwargs: revision, subfolder, token, cache_dir, local_files_only, ... as in `from_pretrained`.

    Returns:
        The folder with the checked files, or None if the Hub has no config.json; `from_pretrained` then says what is
        missing.

    Raises:
        OSError: There is no such folder, or it holds no config.json.
        ValueError: A check failed, or there are no safetensors files. The message describes the first problem and names
            the file, the tensor or the field.
    """
    config_file = _fetch(name_or_path, CONFIG, hub_kwargs)
    if config_file is None:
        return None
    config = _read_json(config_file)
    check_config_size(config)
    single, several = (_of_variant(name, variant) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    weights = _fetch(name_or_path, single, hub_kwargs)
    index = None if weights else _fetch(name_or_path, several, hub_kwargs)
    if index is not None:
        for shard in sorted(_shards(index)):
            _fetch(name_or_path, shard, hub_kwargs)
    if weights is None and index is None:
        if Path(name_or_path).is_dir():
            refuse_pickles(Path(name_or_path) / str(hub_kwargs.get("subfolder") or ""))
        raise ValueError(
            f"{name_or_path} holds no safetensors weights ({single}); pickles such as pytorch_model.bin are "
            "not opened, since opening one can run any code"
        )
    folder = Path(weights or index or "").parent
    expected, required, all_known = _expected(config, model_class, config_file)
    found = check_weights(folder, expected=expected, required=required, variant=variant)
    unknown = sorted(found.keys() - expected.keys()) if all_known else []
    if unknown:
        raise ValueError(
            f"{folder}: the weights hold the tensor {_short(unknown[0])}, which config.json does not ask for; "
            "config.json and the weights do not belong together"
        )
    return folder


def checked_config(name_or_path: str | os.PathLike[str], **hub_kwargs: Any) -> dict[str, Any] | None:
    """Read the config.json of a folder or a Hub repo and check it with `check_config_size`.

    Returns:
        The config, or None if the Hub has no config.json.

    Raises:
        OSError: There is no such folder, or it holds no config.json.
        ValueError: The file is not a JSON object, or a field has an unreasonable value.
    """
    path = _fetch(name_or_path, CONFIG, hub_kwargs)
    if path is None:
        return None
    config = _read_json(path)
    check_config_size(config)
    return config


def check_config_size(config: PreTrainedConfig | Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Refuse a config that no image backbone could have, before transformers parses it.

    Parsing alone can take gigabytes: `num_labels` becomes a dictionary with that many names. Other fields make
    transformers download code or another model.

    Args:
        config: A config, its dictionary, or the path of a config.json.

    Raises:
        ValueError: A field has an unreasonable value. The message names the field and the value.
    """
    if isinstance(config, (str, os.PathLike)):
        config = _read_json(Path(config))
    values = config.to_dict() if isinstance(config, PreTrainedConfig) else dict(config)
    _check_values(values, "")


def count_parameters(model: torch.nn.Module) -> int:
    """Count the parameters of a model, which may be on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_weights(
    folder: str | os.PathLike[str],
    *,
    expected: Mapping[str, Sequence[int]] | None = None,
    required: Iterable[str] = (),
    variant: str | None = None,
) -> Shapes:
    """Check a folder's safetensors files by their headers.

    Args:
        folder: Contains model.safetensors, or model.safetensors.index.json and its shards.
        expected: Tensor name to shape. Tensors with other names are not compared.
        required: Names of tensors that must be in the files.
        variant: Of the files, see `check_before_loading`.

    Returns:
        The name and shape of every tensor.

    Raises:
        ValueError: There are only pickle files, a file is truncated or damaged, a tensor has a wrong shape or is
            missing, or the index refers to a file outside the folder. The message names the file and the tensor.
    """
    folder = Path(folder)
    single, index = (folder / _of_variant(name, variant) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME))
    if single.is_file():
        found = read_header(single)
    elif index.is_file():
        found = {}
        for shard, names in _shards(index).items():
            if not (folder / shard).is_file():
                raise ValueError(f"{folder / shard} is missing: {index.name} names it for tensor {names[0]!r}")
            held = read_header(folder / shard)
            absent = [name for name in names if name not in held]
            if absent:
                raise ValueError(f"{folder / shard} does not hold the tensor {absent[0]!r} that {index.name} says")
            found |= held
    else:
        refuse_pickles(folder)
        raise ValueError(f"{folder} holds no weights: {single.name} is missing")
    for name, shape in (expected or {}).items():
        if name in found and found[name] != tuple(shape):
            raise ValueError(
                f"{folder}: tensor {name!r} has shape {list(found[name])}, the config asks for {list(shape)}; "
                "config.json and the weights do not belong together"
            )
    for name in required:
        if name not in found:
            raise ValueError(f"{folder}: the weights lack the tensor {name!r}, which config.json asks for")
    return found


def refuse_pickles(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder whose only weights are pickle files.

    Raises:
        ValueError: The folder has pickle files and no safetensors file. The message names one and says why.
    """
    folder = Path(folder)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    weights = [name for name in pickles if not name.startswith(("optimizer", "scheduler", "training_args", "rng_"))]
    if weights:
        raise ValueError(
            f"{folder} holds its weights as a pickle ({weights[0]}) only: refused, since opening a pickle can run any "
            "code. Ask for safetensors, or convert it in a place where that does no harm"
        )


def read_header(path: str | os.PathLike[str]) -> Shapes:
    """Read the header of a safetensors file and check that it describes the file's bytes exactly.

    Returns:
        The name and shape of every tensor.

    Raises:
        ValueError: The file is not a safetensors file, is truncated (the message names the first incomplete tensor), or
            its header is inconsistent.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            kind = "is cut off inside its header" if 2 <= length <= MAX_HEADER else "is no safetensors file"
            raise ValueError(f"{path} {kind} ({size} bytes); download or save it again")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_no_key_twice)
            metadata = header.pop("__metadata__", None) or {}
            if not all(isinstance(text, str) for text in metadata.values()):
                raise TypeError("metadata that are no text")
            rows = {name: (row["dtype"], tuple(row["shape"]), *row["data_offsets"]) for name, row in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: its header cannot be read ({type(error).__name__}); get it again") from None
    for name, row in rows.items():
        dtype, shape, *offsets = row
        # A number in JSON may be a fraction, infinite or negative; a boolean also passes as an int.
        whole = len(offsets) == 2 and all(type(number) is int and number >= 0 for number in (*shape, *offsets))
        size_ok = (
            whole and isinstance(dtype, str) and offsets[1] - offsets[0] == math.prod(shape) * BYTES.get(dtype, -1)
        )
        if not size_ok:
            told = f"{str(dtype)[:20]} {str(list(shape))[:80]}, bytes {str(offsets)[:60]}"
            raise ValueError(f"{path}: tensor {_short(name)} is inconsistent ({told})")
    reached = 0
    for name, (_, _, start, end) in sorted(rows.items(), key=lambda row: row[1][2:]):
        if start != reached:
            raise ValueError(f"{path}: tensor {_short(name)} starts at byte {start}, {reached} was expected")
        if 8 + length + end > size:
            raise ValueError(
                f"{path} is cut off: tensor {_short(name)} ends at byte {8 + length + end}, the file at {size}; "
                "download or save it again"
            )
        reached = end
    if 8 + length + reached != size:
        raise ValueError(f"{path} holds {size - 8 - length - reached} bytes that belong to no tensor")
    return {name: shape for name, (_, shape, _, _) in rows.items()}


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object and refuse repeated keys, which other readers may resolve differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _short(name: str) -> str:
    """Quote a tensor's name for a message and shorten it if it is long."""
    return repr(name if len(name) <= 200 else name[:197] + "...")


def _check_meaning(key: str, value: Any, field: str) -> None:
    """Refuse fields that make transformers download code or another model, and dtypes that torch does not have."""
    words = [str(word) for word in (value.values() if isinstance(value, Mapping) else [value])]
    if IMPLEMENTATIONS.fullmatch(key) and any(re.search(r"[/:|@]", word) for word in words):
        raise ValueError(f"config field {field!r} names code to fetch ({words[0]!s:.60}): refused, nothing was loaded")
    if key == "backbone" and isinstance(value, str) and re.search(r"[/:]", value):
        raise ValueError(f"config field {field!r} names another model ({value:.60}): refused, nothing was loaded")
    if key == "use_pretrained_backbone" and value:
        raise ValueError(f"config field {field!r} asks for another model's weights: refused, nothing was loaded")
    if key == "quantization_config" and value is not None:
        raise ValueError(f"config field {field!r}: quantized weights are not read here; publish float weights")
    if key in DTYPES and isinstance(value, str) and not isinstance(getattr(torch, value, None), torch.dtype):
        raise ValueError(f"config field {field!r} is {value!r:.60}, which is no number type of torch")


def _check_values(value: Any, field: str, depth: int = 0) -> None:
    """Walk through the values of a config and refuse unreasonable ones."""
    if depth > 20:
        raise ValueError(f"config field {field!r} is nested too deep; refused before anything was built")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        if not abs(value) <= MAX_NUMBER:
            raise ValueError(f"config field {field!r} is {value!s:.40}: no image backbone is that large; refused")
        return
    if isinstance(value, (Mapping, list, tuple)):
        if len(value) > MAX_ENTRIES:
            raise ValueError(f"config field {field!r} has {len(value)} entries; refused before anything was built")
        rows = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
        for key, item in rows:
            name = field if key is None else f"{field}.{key}".lstrip(".")
            if key is not None:
                _check_meaning(str(key), item, name)
            _check_values(item, name, depth + 1)
            if key is not None and re.search(r"depth|layers|num_blocks", str(key)):
                numbers = item if isinstance(item, (list, tuple)) else [item]
                total = sum(number for number in numbers if isinstance(number, int))
                if total > MAX_DEPTH:
                    raise ValueError(f"config field {name!r} asks for {total} layers; refused before they were built")


def _expected(config: dict[str, Any], model_class: type | None, path: Path) -> tuple[Shapes, list[str], bool]:
    """Derive from a saved config what its weights must look like.

    Returns:
        The shape of each tensor, the names that must be present, and whether other names are errors. All are empty or
        False if the class is unknown.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    values = {key: value for key, value in config.items() if key not in ("auto_map", "model_type")}
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if model_class is None and (not isinstance(model_type, str) or model_type not in CONFIG_MAPPING):
        return {}, [], False
    try:
        if model_class is not None:
            built = cast(type[PreTrainedModel], model_class).config_class.from_dict(values)
        else:
            built = with_stages({**values, "model_type": model_type})
            built = built if isinstance(built, PreTrainedConfig) else AutoConfig.for_model(model_type, **values)
            if type(built) not in MODEL_FOR_BACKBONE_MAPPING:
                return {}, [], False
            model_class = MODEL_FOR_BACKBONE_MAPPING[type(built)]
        with torch.device("meta"):
            model = model_class(built)
    except Exception as error:  # a config's fields can be of any type, and every class fails in its own way
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} describes no model that can be built ({type(error).__name__}: {reason})") from error
    parameters = count_parameters(model)
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"the config asks for {parameters:,} parameters; refused before memory was taken for them")
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # transformers renames the tensors of some families when it saves them. ResNet's keep their names.
    inner = config.get("backbone_config")
    kept_names = "resnet" in (model_type, inner.get("model_type") if isinstance(inner, dict) else None)
    same = kept_names and isinstance(architectures, list) and model_class.__name__ in architectures
    needed = [
        name
        for name in state
        if same and not name.endswith("num_batches_tracked") and not name.startswith(("target.", "classifier."))
    ]
    return state | {f"{model_type}.{name}": shape for name, shape in state.items()}, needed, same


def _of_variant(file: str, variant: str | None) -> str:
    """The name of a file of weights in a variant, as transformers writes it."""
    start, _, ending = file.rpartition(".")
    return file if variant is None else f"{start}.{variant}.{ending}"


def _shards(index: Path) -> dict[str, list[str]]:
    """Read which shard holds which tensors, and refuse a file name that points outside the folder."""
    content = _read_json(index)
    table = content.get("weight_map")
    if not isinstance(table, dict) or not table or not isinstance(content.get("metadata", {}), dict):
        raise ValueError(f"{index} has no weight_map")
    shards: dict[str, list[str]] = {}
    for tensor, file in table.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w][\w.-]*\.safetensors", file):
            raise ValueError(f"{index}: tensor {tensor!r} is said to be in {str(file)[:80]!r}, no file of this folder")
        shards.setdefault(file, []).append(tensor)
    return shards


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path} is larger than {MAX_JSON // 2**20} MiB; that is no file of a model")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def _fetch(name_or_path: str | os.PathLike[str], file: str, hub_kwargs: dict[str, Any]) -> Path | None:
    """Find a file in a folder, or in a Hub repo through the cache. None if it does not exist or cannot be reached.

    Raises:
        OSError: There is no such folder, or it holds no config.json and that was asked for.
    """
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / str(hub_kwargs.get("subfolder") or "") / file
        if file == CONFIG and not path.is_file():
            what = "holds no config.json, so it is no model's" if path.parent.is_dir() else "is no folder"
            raise OSError(f"{path.parent} {what}")
        return path if path.is_file() else None
    if not HUB_NAME.fullmatch(str(name_or_path)):
        raise OSError(f"there is no folder {name_or_path}, and names on the Hub look like user/name")
    kwargs = {key: value for key, value in hub_kwargs.items() if value is not None}
    found = cached_file(str(name_or_path), file, _raise_exceptions_for_missing_entries=False, **kwargs)
    return None if found is None else Path(found)
