"""`ladder` with Hub names: the real command pushes, loads, goes on and checks; a mistake is one line, exit code 2."""

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, load_file, save

from helpers.hub_server import Fault, HubServer
from helpers.hub_server.runs import save_backbone
from helpers.hub_server.tokens import INVALID, READ, WRITE
from ladder_model_cards import push
from ladder_training.cli.entry import main

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME = "user/digits"
FROM = ["pretrain", "digits", "--from", NAME, "--backbone-config", "null", "--max-steps", "1", "--monitor-steps", "0"]
FROM += ["--projection-size", "null", "--projection-hidden-size", "null"]
FROM += [
    "--per-device-train-batch-size",
    "8",
    "--report-to",
    "none",
    "--use-cpu",
    "--disable-tqdm",
    "--warmup-steps",
    "0",
]


@pytest.fixture
def logged_in(client: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """The local Hub, with the write token in the environment and an empty working folder."""
    monkeypatch.setenv("HF_TOKEN", WRITE)
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return client


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run with pretraining/, without a log, whose card takes milliseconds."""
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (folder / "trainer_state.json").unlink()
    return folder


TINY_RUN = {
    "--backbone-config": "{model_type: resnet, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1], "
    "layer_type: basic}",
    "--image_size": "32",
    "--max-steps": "1",
    "--warmup-steps": "0",
    "--monitor-steps": "0",
    "--batch_size": "8",
    "--projection-hidden-size": "16",
    "--projection-size": "8",
}
NEXT = f"next: ladder evaluate knn --model {NAME} --dataset DATASET  (what others get)\n"


@pytest.fixture
def published(logged_in: HubServer, run: Path) -> HubServer:
    """The local Hub with two revisions of the run, tagged v1 and v2; the working folder is empty."""
    for seed, tag in ((1, "v1"), (0, "v2")):
        save_backbone(run, seed)
        push(run, NAME, token=WRITE, tag=tag, include_pretraining=True, report=lambda line: None)
    logged_in.clear()
    return logged_in


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command says when it fails; nothing may be left in the working folder."""
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ladder: error: ") and "Traceback" not in line
    assert list(Path.cwd().iterdir()) == []
    return line


def test_the_real_command_in_its_own_process(hub: HubServer, run: Path, tmp_path: Path) -> None:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    environment = keep | hub.environment(str(tmp_path / "home")) | {"OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_DISABLE_PROGRESS_BARS")
    command = [str(Path(sys.executable).with_name("ladder")), "push", str(run), NAME, "--pretraining", "--private"]

    def ladder(token: str) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 240, "stdin": subprocess.DEVNULL, "check": False}
        return subprocess.run([*command, "--tag", "v1"], env=environment | {"HF_TOKEN": token}, **options)

    bad = ladder(INVALID)
    assert bad.returncode == 2 and bad.stdout == "" and not hub.store.repos
    lines = bad.stderr.splitlines()
    assert [line for line in lines if line.startswith("ladder: ")] == lines[-1:] and "hf auth login" in lines[-1]
    good = ladder(WRITE)
    repo = hub.store.repos[NAME]
    head = repo.resolve("v1")
    assert good.returncode == 0 and good.stdout == f"published: {hub.url}/{NAME}\n{NEXT}"
    assert repo.private and repo.branches["main"] == head.oid and "pretraining/model.safetensors" in head.files
    assert "user/digits (main, tag v1, private)" in good.stderr and "files," in good.stderr, "first what is sent"
    assert f"asking the Hub what {NAME} holds ..." in good.stderr, "then what is waited for"
    assert "model.safetensors: 100%" in good.stderr, "then the progress of the upload"
    assert WRITE not in good.stdout + good.stderr and INVALID not in bad.stdout + bad.stderr


def test_push_again_other_weights_a_branch_and_a_dry_run(
    logged_in: HubServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private = ["--pretraining", "--private", "--tag", "v1", "--message", "My weights"]
    assert main(["push", str(run), NAME, *private, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert re.search(r"user/digits \(.*main, tag v1", said.err) and not logged_in.log
    again = said.out.splitlines()[-1].removeprefix("next: ladder ").partition("  (")[0]
    # What was to be private stays so, with the tag and the message.
    assert shlex.split(again)[:3] == ["push", str(run), NAME] and set(private) <= set(shlex.split(again))
    assert main(["push", str(run), NAME, "--pretraining"]) == 0
    repo = logged_in.store.repos[NAME]
    first = repo.branches["main"]
    capsys.readouterr()
    assert main(["push", str(run), NAME, "--pretraining"]) == 0
    assert capsys.readouterr().out == f"already up to date: {logged_in.url}/{NAME}\n{NEXT}"
    assert repo.branches["main"] == first
    save_backbone(run, seed=5)
    assert main(["push", str(run), NAME, "--revision", "trial", "--message", "Other weights"]) == 0
    assert f"next: ladder evaluate knn --model {NAME}@trial --dataset DATASET" in capsys.readouterr().out
    assert repo.branches["main"] == first and repo.resolve("trial").title == "Other weights"
    assert repo.resolve("trial").files["model.safetensors"] == (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("status", "POST", "/commit/", status=403, times=None), "may not write to user/digits"),
        (Fault("status", "POST", "/commit/", status=400, times=None, message="too many files"), "too many files"),
        (Fault("status", "POST", "/commit/", status=503, times=None), "failed with 503"),
        (Fault("half", "PUT", "^/lfs/", times=None), "connection to the Hub broke"),
        (Fault("echo", "POST", "/create", status=401, times=None), "does not accept the access token"),
    ],
)
def test_a_push_that_fails_is_one_line_and_the_same_command_finishes(
    fault: Fault, message: str, logged_in: HubServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged_in.faults.append(fault)
    line = refused(["push", str(run), NAME], capsys)
    assert message in line and "Next: " in line and WRITE not in line
    logged_in.clear()
    assert main(["push", str(run), NAME]) == 0
    assert len(logged_in.store.history(NAME)) == 2


def test_what_push_says_of_wrong_folders_and_names(
    logged_in: HubServer, plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(plain_run, tmp_path / "run"))
    assert "has no pretraining/ to send; leave out --pretraining" in refused(
        ["push", str(run), NAME, "--pretraining"], capsys
    )
    assert "is no repository name; give USER/NAME" in refused(["push", str(run), "digits"], capsys)
    assert "holds no config.json" in refused(["push", str(tmp_path), NAME], capsys)
    assert "unknown option --privat; did you mean --private?" in refused(["push", str(run), NAME, "--privat"], capsys)
    assert not logged_in.log


def test_export_takes_a_name_a_revision_and_the_cache(
    published: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repo = published.store.repos[NAME]
    repo.private = True  # the token in the environment is the owner's
    for place, words in enumerate(([NAME], [NAME, "--revision", "v1"], [f"{NAME}@v1"], [f"{NAME}@v2", "--verify"])):
        output = tmp_path / str(place)
        assert main(["export", *words, "--output", str(output)]) == 0
        sent = load(repo.resolve("v1" if "v1" in str(words) else "v2").files["model.safetensors"])
        exported = load_file(output / "model.safetensors")
        assert exported.keys() == sent.keys() and all(torch.equal(exported[key], sent[key]) for key in sent)
    assert "files are as user/digits holds them at " + repo.tags["v2"] in capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    published.clear()
    assert main(["export", NAME, "--output", str(tmp_path / "offline")]) == 0
    assert (tmp_path / "offline" / "model.safetensors").read_bytes() == (tmp_path / "0/model.safetensors").read_bytes()
    assert published.log == []
    assert "offline mode is on" in refused(["export", NAME, "--verify", "--output", "x"], capsys)
    assert "connect once" in refused(["export", "user/other", "--output", "x"], capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    line = refused(["export", NAME, "--output", "x", "--verify"], capsys)
    assert "user/digits was not verified: there is no access token" in line and "hf auth login" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # A commit whose preprocessor is not in the cache must not be prepared for with somebody else's numbers.
    snapshot = next(tmp_path.glob("cache/**/snapshots/" + repo.tags["v2"]))
    (snapshot / "preprocessor_config.json").unlink()
    assert "connect once" in refused(["export", f"{NAME}@{repo.tags['v2']}", "--output", "x"], capsys)


def test_evaluate_takes_a_name_and_a_revision(published: HubServer, tmp_path: Path) -> None:
    found = {}
    for name, words in {"v1": ["--revision", "v1"], "v2": ["--verify"]}.items():
        command = ["evaluate", "knn", "--model", NAME, "--dataset", "digits", "--image_size", "32", *words]
        assert main([*command, "--output", str(tmp_path / name)]) == 0
        found[name] = json.loads((tmp_path / name / "evaluation" / "knn-digits.json").read_text())
    assert found["v1"]["model"] == f"{NAME}@v1"
    assert found["v2"]["model"] == f"{NAME}@{published.store.repos[NAME].tags['v2']}"
    assert found["v1"]["metrics"] != found["v2"]["metrics"], "other weights"
    assert not list(tmp_path.glob("cache/**/evaluation")), "nothing is written into the cache"


def flip_a_byte(cache: Path, file: str) -> None:
    """Damage a weights file in the cache, in its last tensor."""
    target = next(path for path in cache.glob(f"**/snapshots/*/{file}")).resolve()
    content = bytearray(target.read_bytes())
    content[-2] ^= 1
    target.chmod(0o644)
    target.write_bytes(content)


def test_verify_finds_a_flipped_byte_before_anything_is_loaded(
    published: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", NAME, "--output", str(tmp_path / "good")]) == 0
    flip_a_byte(tmp_path / "cache", "model.safetensors")
    assert main(["export", NAME, "--output", str(tmp_path / "bad")]) == 0, "without --verify nothing is noticed"
    for words in (["export", NAME], ["evaluate", "knn", "--model", NAME, "--dataset", "digits"], FROM):
        line = refused([*words, "--verify", "--output", "x"], capsys)
        if words is not FROM:
            assert "model.safetensors" in line and "hf download user/digits" in line and "nothing was loaded" in line
    assert main([*FROM, "--output", "run"]) == 0, "pretraining/ of the cache is whole"
    shutil.rmtree("run")
    flip_a_byte(tmp_path / "cache", "pretraining/model.safetensors")
    line = refused([*FROM, "--verify", "--output", "x"], capsys)
    assert "pretraining/model.safetensors" in line and "nothing was loaded" in line


def test_pretraining_goes_on_from_a_name_with_its_target(
    published: HubServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The EMA target starts as it was saved: bit for bit in the first step's target before the update."""
    from ladder_model_cards import build_card
    from ladder_training.trainer.trainer import LadderTrainer

    started: dict[str, torch.Tensor] = {}
    train = LadderTrainer.train

    def look_first(self: LadderTrainer, *args: object, **kwargs: object) -> object:
        started.update({k: v.detach().clone() for k, v in self.pretraining_model.state_dict().items()})
        return train(self, *args, **kwargs)

    monkeypatch.setattr(LadderTrainer, "train", look_first)
    saved = load(published.store.repos[NAME].resolve("v1").files["pretraining/model.safetensors"])
    saved = {
        key: value + 1 if key.startswith("target.backbone") and "bias" in key else value for key, value in saved.items()
    }
    repo = published.store.repos[NAME]
    files = repo.resolve("v1").files | {"pretraining/model.safetensors": save(saved, metadata={"format": "pt"})}
    repo.tags["moved"] = repo.add("other", files, repo.resolve("v1").lfs, "target moved").oid
    words = [word if word != NAME else f"{NAME}@moved" for word in FROM]
    assert main([*words, "--output", str(tmp_path / "on")]) == 0
    assert started.keys() == saved.keys() and all(torch.equal(started[key], saved[key]) for key in saved)
    trained = load_file(tmp_path / "on" / "pretraining" / "model.safetensors")
    moved = [key for key in saved if key.startswith("target.") and not torch.equal(saved[key], trained[key])]
    assert moved, "the target follows from there"
    card = build_card(tmp_path / "on").text
    assert "base_model: user/digits" in card and "| Started&nbsp;from | `user/digits@moved` |" in card


def test_other_heads_and_backbones_than_the_checkpoint_are_named(
    published: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([*FROM, "--projection-size", "64", "--output", "x"], capsys)
    assert "--from user/digits has projection_size 8, but the recipe says 64" in line
    line = refused([*FROM, "--backbone-config", "{model_type: resnet, embedding_size: 9}", "--output", "x"], capsys)
    assert "has embedding_size 8, but the recipe's backbone_config has 9" in line and "--backbone_config null" in line


@pytest.mark.parametrize("words", [["export", "X"], ["evaluate", "knn", "--dataset", "digits", "--model", "X"], FROM])
def test_names_that_cannot_be_loaded(
    words: list[str], published: HubServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_name(name: str) -> list[str]:
        return [name if word in ("X", NAME) else word for word in words]

    published.store.create("somebody/secret", private=True)
    for name in ("nobody/missing", "somebody/secret"):
        line = refused([*with_name(name), "--output", "x"], capsys)
        assert name in line and "no repository on the Hub that your access token shows" in line
    assert "v9" in refused([*with_name(f"{NAME}@v9"), "--output", "x"], capsys)
    published.store.create("user/empty")
    assert "user/empty" in refused([*with_name("user/empty"), "--output", "x"], capsys)
    published.faults.append(Fault("status", status=500, times=None))
    assert NAME in refused([*with_name(NAME), "--output", "x"], capsys)
    published.clear()
    gated = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"}
    published.faults.append(Fault("status", pattern="/resolve/", status=403, headers=gated, times=None))
    assert refused([*with_name(NAME), "--output", "x"], capsys).endswith(
        f"{NAME} cannot be loaded as a model: it is gated, and your access token may not read it; ask for access at "
        f"{published.url}/{NAME}, log in with `hf auth login`, and run the same command again"
    )
    published.clear()
    monkeypatch.setenv("HF_TOKEN", INVALID)
    line = refused([*with_name(NAME), "--output", "x"], capsys)
    assert INVALID not in line and line.endswith(
        f"{NAME} cannot be loaded as a model: the Hub does not accept your access token; log in anew with "
        "`hf auth login`, or correct HF_TOKEN"
    )
    monkeypatch.setenv("HF_TOKEN", READ)
    repo = published.store.repos[NAME]
    files = {path: content for path, content in repo.resolve("main").files.items() if "safetensors" not in path}
    repo.add("main", files | {"pytorch_model.bin": pickle.dumps({})}, frozenset(), "a pickle")
    assert "not opened" in refused([*with_name(NAME), "--output", "x"], capsys)


def test_data_sets_of_the_hub_are_known_with_their_commit(
    logged_in: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from PIL import Image

    from ladder_training.data.sources import hub_dataset

    asked = []

    def info(self: object, name: str, *, revision: str | None, timeout: float) -> SimpleNamespace:
        asked.append((name, revision))
        return SimpleNamespace(sha="ab" * 20)

    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / "1.png")
    assert hub_dataset("user/pets:small", "v1") == ("user/pets", None), "the local Hub has no data sets"
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    assert hub_dataset("user/pets:small", "v1") == ("user/pets", "ab" * 20)
    assert hub_dataset("digits") == hub_dataset(tmp_path / "photos") == (None, None)
    assert asked == [("user/pets", "v1")]


def test_a_finished_run_is_pushed_when_its_recipe_says_so(
    logged_in: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "dataset: digits\nimage_size: 32\nmax_steps: 1\nper_device_train_batch_size: 8\nmonitor_steps: 0\n"
        "projection_hidden_size: 16\nprojection_size: 8\nuse_cpu: true\nreport_to: none\ndisable_tqdm: true\n"
        "backbone_config: {model_type: resnet, embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1], "
        f"layer_type: basic}}\nlicense: mit\npush_to_hub: true\nhub_model_id: {NAME}\nhub_token: {WRITE}\n"
    )
    words = ["pretrain", str(recipe), "--output", str(tmp_path / "mine")]
    assert main(words) == 0
    head = logged_in.store.history(NAME)[0]
    assert head.title == "Publish mine"
    assert head.files["model.safetensors"] == (tmp_path / "mine" / "model.safetensors").read_bytes()
    assert b"license: mit" in head.files["README.md"] and b"not finish" not in head.files["README.md"]
    assert WRITE not in "".join(capsys.readouterr())
    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert not [path for path in files if WRITE.encode() in path.read_bytes()]
    shutil.rmtree(tmp_path / "mine")
    logged_in.clear()
    logged_in.faults.append(Fault("status", "POST", "/commit/", status=403, times=None))
    line = refused([*words, "--max-steps", "2"], capsys)
    assert "is finished and complete, but not published" in line and f"ladder push {tmp_path / 'mine'} {NAME}" in line
    assert (tmp_path / "mine" / "model.safetensors").is_file()


def test_a_finished_run_whose_push_is_interrupted_says_what_publishes_it(
    logged_in: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line said that the same command goes on from the last checkpoint, of a run that was finished."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", interrupted)
    folder = tmp_path / "mine"
    words = [word for pair in TINY_RUN.items() for word in pair]
    hub = ["--push_to_hub", "true", "--hub_model_id", NAME, "--hub_revision", "trial", "--hub_private_repo", "true"]
    code = main(["pretrain", "digits", "--output", str(folder), *words, *hub, "--hub_strategy", "end"])
    *_, said, last = capsys.readouterr().err.splitlines()
    assert code == 130 and (folder / "model.safetensors").is_file()
    assert said == (
        f"push to {NAME} (trial) was interrupted. {NAME} (trial) holds its earlier revision or the new one, whole. "
        "Next: run the same command again"
    )
    assert last == (
        f"ladder: interrupted by SIGINT; {folder} is finished and complete, and `ladder push {folder} {NAME} "
        "--private --revision trial` publishes it"
    )
