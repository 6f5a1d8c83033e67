"""Publishing to the Hub with the real client: one commit, only what belongs there, nothing twice."""

import importlib
import json
import re
import shutil
import threading
from pathlib import Path

import pytest

from helpers.hub_server import Fault, HubServer
from helpers.hub_server.runs import run_facts, save_backbone, write_json
from helpers.hub_server.tokens import WRITE
from ladder_model_cards import CardError, PushError, make_repository, plan_push, push, verify_checksums

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME = "user/digits"


def send(folder: Path, name: str = NAME, **options: object) -> object:
    """Push with the write token, saying nothing."""
    return push(folder, name, token=WRITE, report=lambda line: None, **options)


def sent(hub: HubServer, method: str, part: str) -> int:
    """Number of requests of a kind."""
    return sum(request.method == method and part in request.path for request in hub.log)


def test_everything_goes_in_one_commit(client: HubServer, finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    result = send(folder, include_pretraining=True, tag="v1")
    history = client.store.history(NAME)
    assert [commit.title for commit in history][1:] == ["initial commit"]
    assert len(history) == 2 and sent(client, "POST", "/commit/") == 1
    head = history[0]
    assert result.commit == head.oid and result.changed
    assert client.store.repos[NAME].tags == {"v1": head.oid}
    code = {"checking.py", "configuration_ladder.py", "conversion.py", "heads.py", "labels.py", "losses.py"}
    code |= {"matching.py", "modeling_ladder.py", "modeling_ladder_pretraining.py", "autocast.py", "batch_norm.py"}
    code |= {"timm_configs.py", "timm_stages.py"}
    root = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    figures = {f"figures/{name}.png" for name in ("loss", "knn", "collapse")}
    inner = {"pretraining/config.json", "pretraining/model.safetensors", *(f"pretraining/{name}" for name in code)}
    assert set(head.files) == {".gitattributes"} | root | figures | code | inner
    assert not client.store.repos[NAME].private
    for path in ("config.json", "model.safetensors", "README.md", "pretraining/model.safetensors"):
        assert head.files[path] == (folder / path).read_bytes()
    assert "auto_map" not in json.loads(head.files["config.json"])
    auto_map = json.loads(head.files["pretraining/config.json"])["auto_map"]
    assert auto_map["AutoModelForPreTraining"] == "modeling_ladder_pretraining.LadderSiameseForPreTraining"
    for entry in auto_map.values():
        module, name = entry.split(".")
        assert f"class {name}(".encode() in head.files[f"{module}.py"]
        assert head.files[f"{module}.py"] == head.files[f"pretraining/{module}.py"]
    assert f'from_pretrained("{NAME}", subfolder="pretraining")' in head.files["README.md"].decode()


def test_without_pretraining_none_of_it_is_sent_or_promised(client: HubServer, finished_run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    send(folder)
    files = client.store.history(NAME)[0].files
    assert not [path for path in files if path.endswith(".py") or path.startswith("pretraining")]
    assert "subfolder" not in files["README.md"].decode()


def test_the_same_content_is_no_new_commit(client: HubServer, run: Path) -> None:
    first = send(run)
    client.clear()
    second = send(run)
    assert not second.changed and second.commit == first.commit
    assert len(client.store.history(NAME)) == 2
    assert sent(client, "POST", "/commit/") == 0 and sent(client, "PUT", "") == 0


def test_changed_weights_are_a_second_revision_and_the_first_stays(client: HubServer, run: Path) -> None:
    first = send(run)
    before = (run / "model.safetensors").read_bytes()
    save_backbone(run, seed=1)
    client.clear()
    second = send(run)
    repo = client.store.repos[NAME]
    assert second.changed and second.commit != first.commit
    assert repo.resolve(first.commit).files["model.safetensors"] == before
    assert repo.resolve("main").files["model.safetensors"] == (run / "model.safetensors").read_bytes() != before
    assert sent(client, "PUT", "/lfs/") == 1, "only the weights changed"


def test_private_on_request_and_never_public_by_mistake(client: HubServer, run: Path) -> None:
    send(run, "user/secret", private=True)
    assert client.store.repos["user/secret"].private
    client.store.create("user/open")
    with pytest.raises(PushError, match=r"user/open exists and is public: nothing was sent.*--private"):
        send(run, "user/open", private=True)
    assert len(client.store.history("user/open")) == 1


def test_a_branch_leaves_main_alone(client: HubServer, run: Path) -> None:
    client.store.create(NAME)
    result = send(run, revision="trial/one", tag="t1")
    assert client.store.repos[NAME].tags == {"t1": result.commit}
    assert [commit.title for commit in client.store.history(NAME)] == ["initial commit"]
    assert client.store.repos[NAME].branches["trial/one"] == result.commit
    assert "model.safetensors" in client.store.repos[NAME].resolve("trial/one").files


def test_a_tag_is_never_moved(client: HubServer, run: Path) -> None:
    first = send(run, tag="v1")
    assert send(run, tag="v1").commit == first.commit
    save_backbone(run, seed=1)
    with pytest.raises(PushError, match=r"has a tag v1 already.*nothing was sent; choose another --tag"):
        send(run, tag="v1")
    assert client.store.repos[NAME].branches["main"] == first.commit
    second = send(run, tag="v2")
    assert client.store.repos[NAME].tags == {"v1": first.commit, "v2": second.commit}


def test_a_dry_run_shows_all_and_does_nothing(client: HubServer, finished_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lines: list[str] = []
    result = push(folder, NAME, dry_run=True, include_pretraining=True, report=lines.append)
    assert not client.log and result.commit is None and not result.changed
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    real = send(folder, include_pretraining=True)
    assert result.files == real.files
    plan = plan_push(folder, NAME, include_pretraining=True)
    head = client.store.history(NAME)[0]
    assert plan.size == sum(len(head.files[path]) for path in result.files)
    for file in plan.files:
        assert file.size == len(head.files[file.path])
        assert any(file.path in line for line in lines[1].splitlines())


def test_files_of_an_earlier_model_go_and_those_of_others_stay(client: HubServer, finished_run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    send(folder, include_pretraining=True)
    repo = client.store.repos[NAME]
    head = repo.resolve("main")
    repo.add("main", head.files | {"LICENSE": b"mine", "onnx/model.onnx": b"x"}, head.lfs, "by hand")
    assert send(folder).deleted == [], "the same weights: the checkpoint still belongs to them"
    assert "pretraining/model.safetensors" in repo.resolve("main").files
    (folder / "trainer_state.json").unlink()
    save_backbone(folder, seed=1)
    gone = send(folder).deleted
    files = repo.resolve("main").files
    assert {"LICENSE", "onnx/model.onnx", ".gitattributes"} <= set(files)
    assert not [p for p in files if p.startswith(("figures/", "pretraining/")) or p.endswith(".py")]
    assert "figures/loss.png" in gone and "pretraining/model.safetensors" in gone and "heads.py" in gone


def test_somebody_elses_commit_in_between_is_kept(
    client: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("ladder_model_cards.push")
    look = module._Push._held
    calls: list[str] = []

    def look_then_race(self: object, commit: str) -> object:
        held = look(self, commit)
        if not calls:
            repo = client.store.repos[NAME]
            repo.add("main", {**repo.resolve("main").files, "LICENSE": b"x"}, repo.resolve("main").lfs, "race")
        calls.append(commit)
        return held

    monkeypatch.setattr(module._Push, "_held", look_then_race)
    result = send(run)
    titles = [commit.title for commit in client.store.history(NAME)]
    assert result.changed and titles[1:] == ["race", "initial commit"] and len(calls) == 2
    assert "LICENSE" in client.store.history(NAME)[0].files


@pytest.mark.parametrize(
    "name", ["digits", "user/../x", "user/a--b", "https://h/u/n", "user/", "/x", "user/x.git", "u/n/m", "", "u/n\n"]
)
def test_names_that_no_repository_has(name: str, run: Path) -> None:
    with pytest.raises(PushError, match="is no repository name"):
        plan_push(run, name)


@pytest.mark.parametrize("options", [{"revision": "../x"}, {"tag": "a b"}, {"revision": "0" * 40}, {"tag": "-x"}])
def test_names_that_no_branch_has(options: dict[str, str], run: Path) -> None:
    with pytest.raises(PushError, match=r"revision|tag"):
        plan_push(run, NAME, **options)


def test_what_may_not_be_published(client: HubServer, run: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    with pytest.raises(PushError, match="no pretraining/"):
        send(run, include_pretraining=True)
    with pytest.raises(PushError, match=r"no config\.json"):
        send(tmp_path)
    with pytest.raises(CardError, match=r"run\.json is no valid JSON"):
        (run / "run.json").write_text("{")
        send(run)
    write_json(run / "run.json", run_facts())
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", config | {"model_type": "ladder_siamese"})
    with pytest.raises(PushError, match="no native transformers backbone but 'ladder_siamese'"):
        send(run)
    write_json(run / "config.json", config | {"finetuning_task": "hf_abcdefghijklmnopqrstuvwxyz012345"})
    with pytest.raises(PushError, match=r"config\.json holds what looks like an access token"):
        send(run)
    write_json(run / "config.json", config)
    tensors = load_file(run / "model.safetensors")
    name = sorted(key for key, value in tensors.items() if value.is_floating_point())[3]
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PushError, match=name):
        send(run)
    (run / "model.safetensors").unlink()
    torch.save(tensors, run / "pytorch_model.bin")
    with pytest.raises(PushError, match=r"pickle \(pytorch_model\.bin\) only: refused"):
        send(run)
    assert not client.log and not client.store.repos


def test_a_flipped_byte_is_found(client: HubServer, run: Path) -> None:
    result = send(run)
    found = verify_checksums(run, token=WRITE)
    assert found.ok and found.repo_id == NAME and found.revision == "main" and found.checked == len(result.files)
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model.safetensors").write_bytes(content)
    found = verify_checksums(run, token=WRITE)
    assert not found.ok and found.differing == ["model.safetensors"]
    with pytest.raises(PushError, match="does not say which repository"):
        verify_checksums(run.parent)


def test_verify_compares_the_cache(client: HubServer, run: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    result = send(run)
    with pytest.raises(PushError, match="load user/digits once"):
        verify_checksums(NAME, token=WRITE)
    folder = Path(snapshot_download(NAME, token=WRITE, cache_dir=tmp_path / "cache"))
    stored = [request for request in client.log if request.method == "GET" and request.path.startswith("/lfs/")]
    assert stored and all(request.token is None for request in stored), "the token goes to the Hub only"
    assert verify_checksums(NAME, token=WRITE).ok
    by_folder = verify_checksums(folder, token=WRITE)
    assert by_folder.ok and (by_folder.repo_id, by_folder.revision) == (NAME, result.commit)
    target = (folder / "config.json").resolve()
    target.write_bytes(target.read_bytes().replace(b"resnet", b"resnat", 1))
    assert verify_checksums(NAME, token=WRITE).differing == ["config.json"]


@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("create_repo", "Nothing was sent"),
        ("create_commit", "user/digits (main) holds its earlier revision or the new one, whole"),
        ("create_tag", "user/digits (main) holds the new files, without the tag"),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_a_push_that_is_interrupted_says_what_the_repository_holds(
    method: str, state: str, error: BaseException, client: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"huggingface_hub.HfApi.{method}", interrupted)
    said: list[str] = []
    with pytest.raises(type(error)):
        push(run, NAME, token=WRITE, tag="v1", report=said.append)
    assert said[-1] == f"push to user/digits (main) was interrupted. {state}. Next: run the same command again"


def test_a_push_whose_process_ends_is_not_repeated(client: HubServer, sleeps: list[float], run: Path) -> None:
    client.faults.append(Fault("status", "POST", "/commit/", status=503, times=None))
    ending, said = threading.Event(), []
    ending.set()
    with pytest.raises(PushError, match=r"failed with 503 .*holds its earlier revision or the new one, whole"):
        push(run, NAME, token=WRITE, report=said.append, ending=ending)
    assert not any("trying again" in line for line in said) and sleeps == []
    # It is set while the next attempt is waited for.
    ending.clear()
    threading.Timer(0.2, ending.set).start()
    with pytest.raises(PushError, match="failed with 503"):
        push(run, NAME, token=WRITE, report=said.append, ending=ending)
    assert sum("trying again" in line for line in said) == 1


@pytest.mark.parametrize("revision", [None, "trial"])
def test_a_repository_that_was_renamed_is_named(revision: str | None, client: HubServer, run: Path) -> None:
    """The Hub sends requests for the old name on, and the card would name a repository that is not there."""
    send(run)
    client.store.rename(NAME, "user/numbers")
    before = client.store.history("user/numbers")
    with pytest.raises(PushError) as refused:
        send(run, revision=revision)
    told = "user/digits was renamed: on the Hub it is user/numbers. Nothing was sent. Next: push to user/numbers"
    assert str(refused.value) == told
    with pytest.raises(PushError, match=re.escape(told)):
        make_repository(NAME, token=WRITE)
    assert client.store.history("user/numbers") == before and set(client.store.repos["user/numbers"].branches) == {
        "main"
    }
    assert make_repository("numbers", token=WRITE) == "user/numbers"
