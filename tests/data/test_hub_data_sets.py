"""Data sets of the Hub that cannot be had: one line that says why, and what to do."""

from pathlib import Path

import datasets
import pytest

from helpers.hub_server import Fault, HubServer
from helpers.hub_server.tokens import INVALID
from ladder_training.data.sources import load_image_stream, split_names
from ladder_training.errors import UserError

GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to dataset user/pets is restricted"}


@pytest.fixture
def hub_of_data(client: HubServer, monkeypatch: pytest.MonkeyPatch, own_cache: None) -> HubServer:
    """The local Hub, which `datasets` asks too."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", client.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    return client


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (
            403,
            GATED,
            "it is gated, and your access token may not read it; ask for access at {url}/datasets/user/pets, log in "
            "with `hf auth login`, and run the same command again",
        ),
        (401, GATED, "it is gated, and your access token may not read it; ask for access at {url}/datasets/user/pets,"),
        (
            404,
            {"X-Error-Code": "RepoNotFound"},
            "no such data set, here or on the Hub (a private one needs `hf auth login`)",
        ),
        (
            404,
            {"X-Error-Code": "RevisionNotFound"},
            "Revision 'v9' doesn't exist for dataset 'user/pets' on the Hub; check",
        ),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "the Hub does not accept your access token; log in anew with `hf auth login`, or correct HF_TOKEN",
        ),
    ],
)
def test_what_the_hub_refuses(
    status: int,
    headers: dict[str, str],
    said: str,
    hub_of_data: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A gated data set, and one without this revision, were said not to exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", INVALID)
    hub_of_data.faults.append(Fault("status", None, "/datasets/", status=status, headers=headers, times=None))
    for load in (load_image_stream, lambda name, split, revision: split_names(name, revision=revision)):
        with pytest.raises(UserError) as refused:
            load("user/pets", split="train", revision="v9")
        assert str(refused.value).startswith(f"user/pets: {said.format(url=hub_of_data.url)}")
        assert INVALID not in str(refused.value)
