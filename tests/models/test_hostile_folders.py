"""Hostile and broken checkpoints: nothing runs, nothing half-loads, nothing leaves its place."""

import json
import pickle
import re
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.hub_server import HubServer
from helpers.hub_server.runs import write_json
from modeling_ladder import LadderSiameseForPreTraining, LadderSiameseModel, load_native_backbone
from modeling_ladder.checking import check_before_loading, check_config_size, check_weights, read_header

FRONT = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")


@pytest.fixture
def folder(plain_run: Path, tmp_path: Path) -> Path:
    """A native backbone that the test may damage."""
    return Path(shutil.copytree(plain_run, tmp_path / "run"))


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "backbone.ckpt", "model.pkl"])
@pytest.mark.parametrize("loader", [LadderSiameseModel.from_pretrained, load_native_backbone])
def test_pickles_are_refused_with_the_reason(
    name: str, loader: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(ValueError) as caught:
        loader(folder)
    assert not (tmp_path / "unpickled").exists()
    assert name in str(caught.value) and "can run any code" in str(caught.value)


def test_a_truncated_file_names_the_tensor_wherever_it_is_cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    header.pop("__metadata__", None)
    for cut in (0, 5, 8, 8 + length // 2, 8 + length, 8 + length + 1, len(whole) // 2, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(ValueError) as caught:
            LadderSiameseModel.from_pretrained(folder)
        named = re.search(r"tensor '([^']+)'", str(caught.value))
        assert "model.safetensors" in str(caught.value)
        if cut >= 8 + length:
            start, end = header[named.group(1)]["data_offsets"]
            assert 8 + length + start <= cut < 8 + length + end, "the first tensor that is not whole"
    (folder / "model.safetensors").write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="1 bytes that belong to no tensor"):
        check_weights(folder)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_never_passes_as_another_model(data: st.DataObject, plain_run: Path, tmp_path: Path) -> None:
    whole = bytearray((plain_run / "model.safetensors").read_bytes())
    true = read_header(plain_run / "model.safetensors")
    length = struct.unpack("<Q", whole[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 7 + length))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    try:
        found = read_header(path)
    except ValueError as error:
        assert "model.safetensors" in str(error)
    else:
        sizes = [sorted(map(str, shapes.values())) for shapes in (found, true)]
        assert len(found) <= len(true) and (sizes[0] == sizes[1] or found != true)


def test_a_wrong_shape_and_a_missing_tensor_are_named(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "encoder.stages.2.layers.0.layer.0.convolution.weight"
    assert name in tensors
    save_file({**tensors, name: tensors[name][:, :1].contiguous()}, folder / "model.safetensors")
    for load in (LadderSiameseModel.from_pretrained, check_before_loading):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}.*shape \[24, 1, 3, 3\].*\[24, 16, 3, 3\]"):
            load(folder)
    save_file({key: value for key, value in tensors.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"lack the tensor '{re.escape(name)}'"):
        LadderSiameseModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_labels": 10**9}, "num_labels"),
        ({"hidden_sizes": [8, 16, 24, 10**9]}, "hidden_sizes"),
        ({"depths": [1, 1, 1, 10**6]}, "depths"),
        ({"embedding_size": 10**12}, "embedding_size"),
        ({"num_channels": -(10**9)}, "num_channels"),
        ({"hidden_sizes": [900_000] * 4, "layer_type": "basic"}, "parameters"),
        ({"backbone_config": {"hidden_sizes": [10**10]}}, "backbone_config.hidden_sizes"),
        ({"drop": float("inf")}, "drop"),
        ({"stage_names": ["s"] * 200_000}, "stage_names"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(changes: dict[str, Any], field: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | changes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=re.escape(field)):
            LadderSiameseModel.from_pretrained(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_sizes": "8"}, "config.json describes no model.*hidden_sizes"),
        ({"depths": None}, "config.json describes no model"),
        ({"hidden_act": "__import__('os')"}, "config.json describes no model.*__import__"),
        ({"embedding_size": -8}, "config.json describes no model.*negative"),
        ({"num_labels": "5"}, "config.json describes no model"),
        ({"id2label": [1]}, "config.json describes no model"),
        ({"num_channels": float("nan")}, "num_channels"),
        ({"hidden_sizes": [8, 16, 24]}, "hold the tensor 'encoder.stages.3"),
        ({"dtype": "float999"}, "'dtype' is 'float999'"),
        ({"dtype": "nn"}, "'dtype' is 'nn'"),
        ({"_attn_implementation": "evil/kernel"}, "_attn_implementation.*names code to fetch"),
        ({"attn_implementation": {"": "evil/kernel@main"}}, "attn_implementation.*names code to fetch"),
        ({"backbone_config": {"experts_implementation": "evil/k"}}, "backbone_config.experts_implementation"),
        ({"model_type": "timm_backbone", "backbone": "hf-hub:evil/net"}, "'backbone' names another model"),
        ({"model_type": "timm_backbone", "backbone": "resnet18", "use_pretrained_backbone": True}, "another model's"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
    ],
)
@pytest.mark.parametrize("loader", [LadderSiameseModel.from_pretrained, load_native_backbone])
def test_configs_that_make_no_sense_or_fetch_something(
    changes: dict[str, Any], field: str, loader: Any, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | changes)
    with pytest.raises(ValueError, match=field):
        loader(folder)


@pytest.mark.parametrize(
    "content", [b"[1]", b'{"a":' * 50_000, b"\xff\xfe{}", b'{"model_type": "resnet", "x": ' + b"9" * 5000 + b"}", b""]
)
@pytest.mark.parametrize("loader", [LadderSiameseModel.from_pretrained, load_native_backbone])
def test_configs_that_are_no_json(content: bytes, loader: Any, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json (is no valid JSON|holds no JSON object)"):
        loader(folder)


def test_a_huge_config_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(2**31)  # a hole, which takes no disk
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"config\.json is larger than 64 MiB"):
            LadderSiameseModel.from_pretrained(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_code_in_a_repository_never_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An auto_map at the root, with its file, changes nothing for a model type that transformers knows."""
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoBackbone": "evil.Evil"}
    write_json(folder / "config.json", config | {"auto_map": auto_map})
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    write_json(folder / "preprocessor_config.json", processor | {"auto_map": {"AutoImageProcessor": "evil.Evil"}})
    from ladder_training.evaluation.backbone import load_backbone, load_image_settings

    LadderSiameseModel.from_pretrained(folder)
    load_native_backbone(folder)
    load_backbone(folder)
    assert load_image_settings(folder).size == 64
    write_json(folder / "config.json", config | {"auto_map": auto_map, "model_type": "evil"})
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(str(text)) or "y")
    for load in (LadderSiameseModel.from_pretrained, load_native_backbone, load_backbone):
        with pytest.raises(ValueError, match="custom code"):
            load(folder)
    assert not mark.exists() and asked == [], "nobody is asked either"


def damaged(path: Path, change: Any) -> None:
    """Rewrite a safetensors file's header; `change` gets the parsed one and gives the new one or its bytes."""
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = change(json.loads(whole[8 : 8 + length]))
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + whole[8 + length :])


def of_one(**fields: Any) -> Any:
    """A change of one tensor's row in a header."""

    def change(header: dict[str, Any]) -> dict[str, Any]:
        name = "embedder.embedder.convolution.weight"
        return header | {name: header[name] | fields}

    return change


@pytest.mark.parametrize(
    "change",
    [
        of_one(shape=[float("nan")]),
        of_one(shape=[float("inf")]),
        of_one(shape=[-1, 3, 7, 7]),
        of_one(shape=["8"]),
        of_one(shape=[10**30]),
        of_one(shape=[8, 3, 7.0, 7]),
        of_one(shape=[8, 3, True, 49]),
        of_one(shape=None),
        of_one(dtype=["F32"]),
        of_one(dtype="F4"),
        of_one(data_offsets=[0, 4, 8]),
        of_one(data_offsets={"a": 0, "b": 4}),
        of_one(data_offsets=[float("nan")] * 2),
        of_one(data_offsets=[-4, 0]),
        lambda header: header | {"__metadata__": 7},
        lambda header: header | {"__metadata__": {"format": ["pt"]}},
        lambda header: header | {"x" * 10**6: {"dtype": "F32", "shape": [0], "data_offsets": [1, 1]}},
        lambda header: (json.dumps(header)[:-1] + ", " + json.dumps(header)[1:]).encode(),
        lambda header: b"[" * 200_000,
        lambda header: b'{"a":' * 100_000,
        lambda header: b"\xff\xfe{}",
        lambda header: b"[]",
    ],
)
def test_headers_that_lie(change: Any, folder: Path) -> None:
    damaged(folder / "model.safetensors", change)
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        LadderSiameseModel.from_pretrained(folder)
    assert len(str(caught.value)) < 1000


def test_lengths_of_headers_are_no_reason_to_take_memory(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (2**63, 2**40, 90 * 2**20, 1, 0):
        with path.open("wb") as file:
            file.write(struct.pack("<Q", length) + whole[8:])
            file.truncate(2**31)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"is no safetensors file"):
                read_header(path)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"crop_size": {"height": 10**9, "width": 10**9}}, "crop_size"),
        ({"crop_size": {"height": -1, "width": -1}}, "crop_size"),
        ({"crop_size": {"height": True, "width": True}}, "crop_size"),
        ({"size": {"shortest_edge": "64"}}, "size"),
        ({"size": [1]}, "size"),
        ({"size": 10**30}, "size"),
        ({"image_mean": [float("nan")] * 3}, "image_mean"),
        ({"image_mean": "0.5"}, "image_mean"),
        ({"image_mean": [0.5] * 9}, "image_mean"),
        ({"image_std": [0.0, 0.1, 0.1]}, "image_std"),
        ({"image_std": [float("inf")] * 3}, "image_std"),
        ({"resample": "evil"}, "resample"),
        ({"rescale_factor": "1e3"}, "rescale_factor"),
    ],
)
def test_preprocessors_that_make_no_sense(changes: dict[str, Any], field: str, folder: Path) -> None:
    from ladder_training.errors import UserError
    from ladder_training.models.processor import image_processor, processor_of

    good = json.loads(image_processor(32).to_json_string())
    write_json(folder / "preprocessor_config.json", good | changes)
    with pytest.raises(UserError, match=rf"preprocessor_config\.json: {field}"):
        processor_of(str(folder))


def test_a_preprocessor_sets_only_its_own_fields(folder: Path) -> None:
    from ladder_training.models.processor import image_processor, processor_of

    good = json.loads(image_processor(32).to_json_string())
    write_json(folder / "preprocessor_config.json", good | {"preprocess": "evil", "__class__": "x", "evil": 1})
    found = processor_of(str(folder))
    assert callable(found.preprocess) and not hasattr(found, "evil")
    assert json.loads(found.to_json_string()) == good
    for kind in (7, None, ["BitImageProcessor"]):
        write_json(folder / "preprocessor_config.json", good | {"image_processor_type": kind})
        assert processor_of(str(folder)).crop_size["height"] == 32


def test_a_link_out_of_the_folder_is_not_published(folder: Path, tmp_path: Path) -> None:
    from ladder_model_cards import PushError, plan_push

    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nprivate")
    (folder / "figures").mkdir()
    (folder / "figures" / "pca.png").symlink_to(secret)
    with pytest.raises(PushError, match=r"pca\.png is a link to .*secret\.png, outside the folder: nothing was sent"):
        plan_push(folder, "user/x")
    (folder / "figures" / "pca.png").unlink()
    (folder / "figures" / "pca.png").write_bytes(b"no picture")
    with pytest.raises(PushError, match=r"pca\.png is no PNG picture"):
        plan_push(folder, "user/x")
    (folder / "figures" / "pca.png").unlink()
    kept = (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(kept)
    with pytest.raises(PushError, match=r"model\.safetensors is a link to"):
        plan_push(folder, "user/x")
    # A snapshot of the Hub's cache is made of links into its own blobs.
    cache = tmp_path / "models--user--x"
    shutil.copytree(folder, cache / "snapshots" / ("0" * 40), symlinks=False)
    snapshot = cache / "snapshots" / ("0" * 40)
    (cache / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(cache / "blobs" / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert "model.safetensors" in [file.path for file in plan_push(snapshot, "user/x").files]


def test_absurd_sizes_of_a_ladder_checkpoint(finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run / "pretraining", tmp_path / "p"))
    config = json.loads((folder / "config.json").read_text())
    for changes in ({"projection_hidden_size": 10**8}, {"projection_size": [10**7] * 4}, {"local_grid_size": 10**9}):
        write_json(folder / "config.json", config | changes)
        with pytest.raises(ValueError, match=next(iter(changes))):
            LadderSiameseForPreTraining.from_pretrained(folder)
    deep: Any = 1
    for _ in range(100):
        deep = {"backbone_config": deep}
    with pytest.raises(ValueError, match="nested too deep"):
        check_config_size({"a": deep})


@pytest.mark.parametrize("path", ["../../evil.safetensors", "/tmp/evil.safetensors", "a/../b.safetensors", 7, "x.bin"])
def test_an_index_never_leads_out_of_the_folder(path: object, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": path}})
    with pytest.raises(ValueError, match="no file of this folder"):
        LadderSiameseModel.from_pretrained(folder)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_repo_paths_never_leave_the_cache(client: HubServer, folder: Path, tmp_path: Path) -> None:
    """A hostile server lists files with `..` and an index that points at one of them."""
    from huggingface_hub import hf_hub_download, snapshot_download

    repo = client.store.create("evil/model")
    index = json.dumps({"metadata": {}, "weight_map": {"w": "../../../../evil.safetensors"}}).encode()
    files = {"config.json": (folder / "config.json").read_bytes(), "model.safetensors.index.json": index}
    files |= {"../../../../evil.safetensors": b"evil", "../evil.txt": b"evil", "/evil-absolute.txt": b"evil"}
    repo.add("main", files, frozenset(), "evil")
    cache = tmp_path / "deep" / "er" / "cache"
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    with pytest.raises(ValueError, match="no file of this folder"):
        LadderSiameseModel.from_pretrained("evil/model", cache_dir=cache)
    for attempt in (
        lambda: snapshot_download("evil/model", cache_dir=cache),
        lambda: hf_hub_download("evil/model", "../../../../evil.safetensors", cache_dir=cache),
    ):
        with pytest.raises((ValueError, OSError)):
            attempt()
    after = {path for path in tmp_path.rglob("*") if cache not in path.parents and path not in cache.parents}
    assert after - {cache} == before
    # What is inside the cache lies inside it: no link leads out.
    assert all(cache.resolve() in path.resolve().parents for path in cache.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_a_broken_download_is_no_model(client: HubServer, folder: Path, tmp_path: Path) -> None:
    repo = client.store.create("user/cut")
    weights = (folder / "model.safetensors").read_bytes()
    config = (folder / "config.json").read_bytes()
    repo.add("main", {"config.json": config, "model.safetensors": weights[:-1000]}, frozenset(), "cut")
    with pytest.raises(ValueError, match=r"is cut off: tensor '"):
        LadderSiameseModel.from_pretrained("user/cut", cache_dir=tmp_path / "cache")
    repo.add("main", {"config.json": config, "pytorch_model.bin": pickle.dumps(Bomb())}, frozenset(), "pickle")
    with pytest.raises(ValueError, match="no safetensors weights"):
        LadderSiameseModel.from_pretrained("user/cut", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.bin"))
    repo.add("main", {"config.json": b'{"model_type": "resnet", "num_labels": 1000000000}'}, frozenset(), "absurd")
    with pytest.raises(ValueError, match="num_labels"):
        LadderSiameseModel.from_pretrained("user/cut", cache_dir=tmp_path / "cache")
