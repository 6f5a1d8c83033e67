"""The device that computes, and when cuDNN may try its convolutions."""

import pytest
import torch

from ladder_training.models.devices import fastest_convolutions


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"), [("cuda", False, True), ("cuda", True, False), ("cpu", False, False)]
)
def test_cudnn_tries_its_convolutions_unless_determinism_was_asked_for(monkeypatch, device, deterministic, expected):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    assert not torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), fastest_convolutions(torch.device(device)):
        assert torch.backends.cudnn.benchmark is expected
        raise KeyError
    assert not torch.backends.cudnn.benchmark
