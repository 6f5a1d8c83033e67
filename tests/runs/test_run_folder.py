"""The facts that a run records about its machine."""

import torch

from ladder_training.runs.run_folder import hardware


def test_a_node_of_eight_gpus_is_eight_gpus(monkeypatch) -> None:
    """Each process sees all eight, but computes on one."""
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    assert hardware(torch.device("cuda", 3), 8) == "8 x H100"
    assert hardware(torch.device("cuda", 0), 64) == "64 x H100"
    assert hardware() == "1 x H100"
    assert "no GPU" in hardware(torch.device("cpu"), 1)
    assert hardware(torch.device("cpu"), 2).endswith("no GPU, 2 processes")
