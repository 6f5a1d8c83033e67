"""Hostile and broken checkpoints and texts: nothing runs, nothing half-loads, nothing breaks out of its place."""

import itertools
import json
import pickle
import re
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer
from hub_server.runs import STAGES, evaluation, run_facts, save_backbone, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder_model_cards import build_card, write_card
from ladder_model_cards.text import code, fence, hide_paths, one_line, plain, table
from modeling_ladder import LadderSiameseForPreTraining, LadderSiameseModel, load_native_backbone
from modeling_ladder.checking import check_before_loading, check_config_size, check_weights, read_header

pytest_plugins = ["hub_server.fixtures"]
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


NASTY = [
    "</details><script>alert(1)</script>",
    "x\n---\nlicense: mit\n---\n# Owned",
    "![x](https://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "https://evil.example www.evil.example",
    "| a | b |\n| - | - |",
    "`code` ``` ~~~",
    "{{ config }} ${HOME} $title",
    "<!-- ladder-card: your text ends here -->",
    "a: b # c & *d !!python/object/apply:os.system ['id']",
    "\u202egnp.exe\u0000\x1b[31m",
    "&lt;b&gt; &#60;",
    "\\* _em_ **bold** ~~s~~ @user #12 $$x$$",
    "'\"; drop",
]


def hostile_run(folder: Path, text: str) -> None:
    """Put a text everywhere in a run's files where data of others can end up."""
    facts = run_facts(license=text, method=text, hardware=text, git_commit=text, status=text, reason=text, command=text)
    facts["datasets"] = [{"name": text, "split": text, "revision": text, "fingerprint": text, "images": 3}]
    facts["versions"] = {text: text}
    facts["recipe"] = {"name": text, "text": f"dataset: {text}\n```\n</details>", "values": {"from_model": text}}
    write_json(folder / "run.json", facts)
    changes: dict[str, Any] = {"dataset": text, "split": text, "fit_split": text, "notes": [text], "seed": text}
    changes |= {"protocol": {text: text}, "classes": [text, "cat"], "per_class": {text: [0.5, None]}}
    changes["metrics"] = {text or "x": {text or "y": 0.5}, "stage1": {"accuracy": 0.25}}
    for path in (folder / "evaluation").glob("*.json"):
        path.unlink()
    write_json(folder / "evaluation" / "a.json", evaluation("knn", **changes))
    write_json(folder / "evaluation" / "b.json", evaluation(text or "t", **changes))
    figures = {"mean": 0.5, "std": text, "collapsed": [text], "difference": {"mean": 0.1, "low": text}}
    row = {"task": text, "dataset": text, "metric": text, "headline": text, "methods": {text: figures}}
    compared = {"methods": [text, f"{text}2"], "baseline": text, "seeds": [text, 1], "dataset": text, "rows": [row]}
    compared |= {"pretraining": {text: {text: {"steps": 4, "seconds": 5}}}, "notes": [text]}
    write_json(folder / "comparison.json", compared)


def check_card(text: str) -> None:
    """A card's metadata is a mapping of known keys, and its Markdown holds no markup but the template's."""
    block = FRONT.match(text)
    data = yaml.safe_load(block.group(2))
    known = {"datasets", "library_name", "license", "pipeline_tag", "tags", "model-index", "base_model"}
    assert set(data) <= known and data["library_name"] == "transformers"
    body = text[block.end() :]
    assert body.count("<!-- ladder-card: your text ends here -->") == 1
    outside, fences, ticks = [], 0, ""
    for line in body.splitlines():
        mark = re.match(r"`{3,}", line)
        if mark and (not ticks or line.strip() == ticks):
            ticks, fences = ("" if ticks else mark.group(0)), fences + 1
        elif not ticks:
            outside.append(line)
    assert not ticks and fences % 2 == 0
    prose = re.sub(r"`[^`\n]*`", "", "\n".join(outside))
    tags = set(re.findall(r"<[^>]*>?", re.sub(r"<!-- .*? -->", "", prose)))
    assert tags <= {"<details>", "</details>", "<summary>", "</summary>"}
    assert prose.count("<details>") == prose.count("</details>")
    links = re.findall(r"\]\(([^)]*)\)", prose)
    assert all(link.startswith(("https://arxiv.org/abs/", "figures/")) for link in links)
    bare = re.sub(r"\(https://arxiv\.org/abs/[\d.]+\)", "", prose)
    assert not re.search(r"https?:|www\.", bare)
    titles = {line for line in outside if line.startswith("#")}
    assert not any("Owned" in line and not line.startswith(("# ", "### ")) for line in titles)
    for before, line in itertools.pairwise(outside):
        if before.startswith("| ") and line.startswith("| "):
            assert before.count("|") == line.count("|"), "a cell's bar would add a column"
    assert all(char.isprintable() for line in outside for char in line)


@pytest.mark.parametrize("text", NASTY)
def test_text_from_data_stays_text(text: str, folder: Path) -> None:
    hostile_run(folder, text)
    card = write_card(folder).read_text(encoding="utf-8")
    check_card(card)
    assert write_card(folder).read_text(encoding="utf-8") == card, "a rebuild reads its own card back"


@given(text=st.text(min_size=1, max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_stays_text(text: str, plain_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(plain_run, folder)
    hostile_run(folder, text)
    check_card(build_card(folder).text)


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_plain_shows_exactly_the_text(text: str) -> None:
    import html

    shown = one_line(text)
    assert html.unescape(plain(text)) == shown
    rest = re.sub(r"&#\d+;", "", plain(text))
    assert not re.search(r"[`*\[\]<>|~\\$!#&(){}@]|https?:|www\.", rest)
    assert "\n" not in table(["a", "b"], [[plain(text), code(text)]]).splitlines()[-1]
    block = fence(text)
    ticks = re.match(r"`+", block).group(0)
    assert len(ticks) >= 3 and not any(line.strip() == ticks for line in block.splitlines()[1:-1])


def test_secrets_and_paths_stay_at_home(folder: Path) -> None:
    token = "hf_abcdefghijklmnopqrstuvwxyz0123456789"
    command = f"ladder pretrain /home/jane/secret/recipe.yaml --hub_token {token}"
    recipe = {"text": f"dataset: /home/jane/data/cats\nhub_token: {token}\n", "values": {"hub_token": token}}
    write_json(
        folder / "run.json", run_facts(command=command, recipe=recipe, datasets=[{"name": "/home/jane/data/cats"}])
    )
    text = write_card(folder).read_text(encoding="utf-8")
    assert token not in text and "jane" not in text and "/home" not in text
    assert ".../recipe.yaml" in text and ".../cats" in text
    assert "datasets" not in yaml.safe_load(FRONT.match(text).group(2)), "a local folder is no data set of the Hub"
    assert hide_paths("a/b and user/name and /x/y/z.png, C:\\u\\v\\w") == "a/b and user/name and .../z.png, .../w"


def test_stage_names_are_text_too(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    names = ["stem", "<b>", *STAGES[1:]]
    write_json(folder / "config.json", config | {"stage_names": names, "architectures": ["x; import os"]})
    check_card(write_card(folder).read_text(encoding="utf-8"))
    save_backbone(folder)
