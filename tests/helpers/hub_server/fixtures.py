"""Fixtures: a local Hub, and the real client of this very process pointed at it."""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .runs import make_run
from .server import HubServer
from .tokens import TOKENS


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A fresh local Hub."""
    with HubServer(TOKENS) as server:
        yield server


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting times that the client and the push asked for; nobody really waits."""
    import huggingface_hub.utils._http as client_http

    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append)
    monkeypatch.setattr(client_http, "time", clock)
    monkeypatch.setattr(importlib.import_module("ladder_model_cards.retry"), "time", clock)
    return waited


@pytest.fixture
def client(hub: HubServer, sleeps: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The real client in this process, talking to the local Hub over plain LFS."""
    import huggingface_hub
    from huggingface_hub import constants

    values: dict[str, Any] = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    # transformers keeps a client of its own, with the address it was made with.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything in it; tests that write copy it."""
    return make_run(tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without pretraining/ and without a log, so that its card takes milliseconds."""
    return make_run(tmp_path_factory.mktemp("runs") / "plain", log=False, pretraining=False)


@pytest.fixture
def run(plain_run: Path, tmp_path: Path) -> Path:
    """A run's folder without a log, that the test may change."""
    return Path(shutil.copytree(plain_run, tmp_path / "run"))


@pytest.fixture
def full_run(finished_run: Path, tmp_path: Path) -> Path:
    """A run's folder with everything, that the test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "full"))
