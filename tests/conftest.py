"""Small models and view pairs that many tests share."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The networks of the tests are too small for several threads, which only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import ResNetConfig

from helpers.models import tiny_resnet

pytest_plugins = ["helpers.hub_server.fixtures"]


def pytest_configure() -> None:
    """A shell in the background ignores Ctrl-C, and nohup the end of the terminal; tests and their processes do not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what `datasets` prepares out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def tiny_backbone() -> ResNetConfig:
    """A four-stage ResNet of 20 thousand parameters."""
    return tiny_resnet()


@pytest.fixture
def view_pairs() -> Callable[..., dict[str, torch.Tensor]]:
    """Makes a batch of random view pairs with overlapping boxes."""

    def make(batch: int = 4, size: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(batch, 2, 2, generator=generator) * 0.4
        high = 0.6 + torch.rand(batch, 2, 2, generator=generator) * 0.4
        return {
            "pixel_values": torch.randn(batch, 2, 3, size, size, generator=generator),
            "view_boxes": torch.cat([low, high], dim=-1),
            "view_flips": torch.rand(batch, 2, generator=generator) < 0.5,
        }

    return make
