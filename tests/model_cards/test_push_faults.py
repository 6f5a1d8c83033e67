"""Every fault at every request of a push: the remote stays whole, the message helps, the same command finishes."""

import copy
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.hub_server import Fault, HubServer
from helpers.hub_server.runs import run_facts, save_backbone, write_json
from helpers.hub_server.tokens import FOREIGN, INVALID, READ, WRITE
from ladder_model_cards import PushError, push

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME = "user/digits"
FAULTS: dict[str, Callable[..., Fault]] = {
    "500": lambda **k: Fault("status", status=500, **k),
    "503 with Retry-After": lambda **k: Fault("status", status=503, headers={"Retry-After": "7"}, **k),
    "429 with Retry-After": lambda **k: Fault("status", status=429, headers={"Retry-After": "11"}, **k),
    "502 page of a proxy": lambda **k: Fault("html", **k),
    "dropped before": lambda **k: Fault("drop", **k),
    "dropped in the middle": lambda **k: Fault("half", **k),
    "answer lost": lambda **k: Fault("lost", **k),
    "refused with 400": lambda **k: Fault("status", status=400, **k),
    "refused with 403": lambda **k: Fault("status", status=403, **k),
    "token echoed": lambda **k: Fault("echo", status=403, **k),
    "token echoed as the reason": lambda **k: Fault("echo", status=400, **k),
}
TRANSIENT = list(FAULTS)[:7]
STEPS = {
    "create": ("POST", "/api/repos/create"),
    "look": ("GET", "/revision/main$"),
    "refs": ("GET", "/refs$"),
    "list": ("GET", "/tree/"),
    "card check": ("POST", "/api/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "LFS batch": ("POST", "/objects/batch"),
    "LFS upload": ("PUT", "^/lfs/"),
    "LFS verify": ("POST", "/lfs/verify/"),
    "commit": ("POST", "/commit/"),
    "tag": ("POST", "/tag/"),
}
# A repository that exists need not be made. What was done although the answer got lost is found by the next try; so
# is a large file that arrived although nobody could verify it.
HARMLESS_FOR_EVER = {("refused with 403", "create"), ("token echoed", "create")}
HARMLESS_FOR_EVER |= {("answer lost", step) for step in ("LFS upload", "commit", "tag")}
HARMLESS_FOR_EVER |= {(fault, "LFS verify") for fault in TRANSIENT}


@pytest.fixture
def new_run(plain_run: Path, tmp_path: Path) -> Path:
    """A run's folder with other weights than the one that the remote holds."""
    folder = Path(shutil.copytree(plain_run, tmp_path / "run"))
    save_backbone(folder, seed=1)
    write_json(folder / "run.json", run_facts(seed=1))
    return folder


def send(folder: Path, token: str = WRITE, name: str = NAME) -> tuple[object, list[str]]:
    """Push with a tag; the result and what was reported."""
    lines: list[str] = []
    return push(folder, name, token=token, tag="v2", report=lines.append), lines


def whole_revisions(hub: HubServer) -> list[dict[str, bytes]]:
    """Contents of main's revisions, oldest first."""
    return [commit.files for commit in reversed(hub.store.history(NAME))]


def test_the_steps_are_all_the_requests_of_a_push(client: HubServer, new_run: Path) -> None:
    send(new_run)
    left = [
        (request.method, request.path)
        for request in client.log
        if not any(m == request.method and re.search(p, request.path) for m, p in STEPS.values())
        and request.path != "/api/agent-harnesses"  # the client's own question, once a process
    ]
    assert left == []
    for method, pattern in STEPS.values():
        assert any(method == request.method and re.search(pattern, request.path) for request in client.log), pattern


@pytest.mark.parametrize("step", STEPS)
def test_every_fault_at_every_request(
    step: str,
    client: HubServer,
    sleeps: list[float],
    plain_run: Path,
    new_run: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, logger="huggingface_hub")
    method, pattern = STEPS[step]
    said: list[str] = []
    push(shutil.copytree(plain_run, tmp_path / "old"), NAME, token=WRITE, report=said.append)
    start, old = copy.deepcopy(client.store), whole_revisions(client)[-1]
    for fault, times in [(name, times) for name in FAULTS for times in ("once", "always")]:
        client.clear()
        client.store = copy.deepcopy(start)
        sleeps.clear()
        client.faults.append(FAULTS[fault](method=method, pattern=pattern, times=1 if times == "once" else None))
        message = ""
        try:
            result, lines = send(new_run)
            said += lines
        except PushError as error:
            message = str(error)
            said.append(message)
            assert error.__cause__ is None, "the client's error must not be printed along"
        case = f"{fault} ({times}) at {step}: {message}"
        # Whatever happened, main holds the old or the new revision, whole.
        revisions = whole_revisions(client)
        assert len(revisions) in (2, 3), case
        assert revisions[1] == old, case
        expected_new = {path: (new_run / path).read_bytes() for path in ("model.safetensors", "README.md")}
        if len(revisions) == 3:
            assert {path: revisions[2][path] for path in expected_new} == expected_new, case
            assert revisions[2].keys() == old.keys(), case
        if times == "once" and fault in TRANSIENT:
            assert not message, case
            assert result.changed and len(revisions) == 3, case
            wait = {"503 with Retry-After": 7, "429 with Retry-After": 11}.get(fault)
            if wait is not None:
                assert sleeps and sleeps[0] in (wait, wait + 1), case
        if message:
            assert "\n" not in message and NAME in message and "Next: " in message and "again" in message, case
            cause = {
                "500": "failed with 500",
                "503 with Retry-After": "failed with 503",
                "429 with Retry-After": "fewer requests",
                "502 page of a proxy": "502|no JSON",
                "refused with 400": "refused|fault asked for",
                "refused with 403": "may not write",
                "token echoed": "may not write",
                "token echoed as the reason": "refused",
            }.get(fault, "connection to the Hub broke")
            assert re.search(cause, message), case
        elif times == "always":
            assert (fault, step) in HARMLESS_FOR_EVER, case
        # The same command finishes, with one new revision in all.
        client.clear()
        result, lines = send(new_run)
        said += lines
        revisions = whole_revisions(client)
        assert len(revisions) == 3, case
        assert {path: revisions[2][path] for path in expected_new} == expected_new, case
        assert client.store.repos[NAME].tags == {"v2": result.commit}, case
    told = "\n".join(said) + caplog.text + "".join(capfd.readouterr())
    assert WRITE not in told
    for path in new_run.rglob("*"):
        assert not path.is_file() or WRITE.encode() not in path.read_bytes()


def test_every_fault_when_a_branch_is_made(
    client: HubServer, sleeps: list[float], plain_run: Path, new_run: Path, tmp_path: Path
) -> None:
    """With --revision there is one request more; main is never touched, the branch starts as main and ends whole."""
    push(shutil.copytree(plain_run, tmp_path / "old"), NAME, token=WRITE, report=lambda line: None)
    start, old = copy.deepcopy(client.store), whole_revisions(client)[-1]
    weights = (new_run / "model.safetensors").read_bytes()
    for step, (method, pattern) in {"branch": ("POST", "/branch/trial$"), "commit": ("POST", "/commit/")}.items():
        for fault, times in [(name, times) for name in FAULTS for times in ("once", "always")]:
            client.clear()
            client.store = copy.deepcopy(start)
            client.faults.append(FAULTS[fault](method=method, pattern=pattern, times=1 if times == "once" else None))
            case, repo, message = f"{fault} ({times}) at {step}", client.store.repos[NAME], ""
            try:
                push(new_run, NAME, token=WRITE, revision="trial", report=lambda line: None)
            except PushError as error:
                message = str(error)
                assert "user/digits (trial)" in message and "Next: " in message and WRITE not in message, case
            assert whole_revisions(client)[-1] == old, case
            if "trial" in repo.branches:
                held = repo.resolve("trial").files
                assert held == old or held["model.safetensors"] == weights, case
            if times == "once" and fault in TRANSIENT:
                assert not message, case
            elif times == "always":
                assert message or fault == "answer lost", case
            client.clear()
            push(new_run, NAME, token=WRITE, revision="trial", report=lambda line: None)
            assert repo.resolve("trial").files["model.safetensors"] == weights, case
            assert repo.resolve("trial").parent == repo.branches["main"], case


@pytest.mark.parametrize(
    ("token", "name", "cause"),
    [
        (INVALID, NAME, "does not accept the access token.*hf auth login"),
        (READ, NAME, "may not write to user/digits.*write access"),
        (FOREIGN, NAME, "may not write to user/digits.*a repository of your own"),
        (READ, "user/new", "may not write to user/new"),
        (FOREIGN, "user/private", "may not write to user/private"),
        (WRITE, "nobody/missing", "may not write to nobody/missing"),
    ],
)
def test_tokens_that_may_not_write(
    token: str, name: str, cause: str, client: HubServer, plain_run: Path, tmp_path: Path
):
    folder = Path(shutil.copytree(plain_run, tmp_path / "run"))
    client.store.create(NAME)
    client.store.create("user/private", private=True)
    with pytest.raises(PushError, match=cause) as caught:
        send(folder, token, name)
    assert token not in str(caught.value) and "Next: " in str(caught.value)
    assert len(client.store.history(NAME)) == 1 and len(client.store.history("user/private")) == 1
    assert set(client.store.repos) == {NAME, "user/private"}


def test_no_token_and_no_network(client: HubServer, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    folder = Path(shutil.copytree(plain_run, tmp_path / "run"))
    with pytest.raises(PushError, match=r"there is no access token.*hf auth login"):
        push(folder, NAME, report=lambda line: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PushError, match=r"offline mode is on \(HF_HUB_OFFLINE\).*unset"):
        push(folder, NAME, token=WRITE, report=lambda line: None)
    assert not client.store.repos


def test_what_a_repository_holds_after_a_failure(client: HubServer, sleeps: list[float], run: Path) -> None:
    """Before the commit is asked for nothing can have arrived; from then on its answer may have been lost."""
    with pytest.raises(PushError, match=r"the access token\. Nothing was sent\. Next: "):
        send(run, INVALID)
    client.faults.append(Fault("lost", "POST", "/commit/"))
    with pytest.raises(PushError, match=r"user/digits \(main\) holds its earlier revision or the new one, whole"):
        push(run, NAME, token=WRITE, report=lambda line: _refuse_retries(client, line))
    assert "model.safetensors" in client.store.history(NAME)[0].files, "the answer got lost, the commit did not"


def _refuse_retries(client: HubServer, line: str) -> None:
    if "trying again" in line:
        client.faults.append(Fault("drop", "POST", "/repos/create", times=None))


def test_a_wait_of_an_hour_is_not_waited(client: HubServer, sleeps: list[float], plain_run: Path, tmp_path: Path):
    folder = Path(shutil.copytree(plain_run, tmp_path / "run"))
    client.faults.append(Fault("status", "POST", "/repos/create", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(PushError, match=r"fewer requests.*asks to wait 3600 s"):
        send(folder)
    assert sleeps == []


def test_card_metadata_that_the_hub_refuses(client: HubServer, plain_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain_run, tmp_path / "run"))
    client.faults.append(Fault("status", "POST", "/api/validate-yaml", status=400, message="bad license", times=None))
    with pytest.raises(PushError, match="Invalid metadata"):
        send(folder)
    assert "model.safetensors" not in client.store.history(NAME)[0].files
