"""A network in parts is refused in one line, before anything is written."""

import pytest

from helpers.training import make_arguments
from ladder_training.config.launchers import check_launcher
from ladder_training.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp": "full_shard"}, "fsdp cannot be used"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "deepspeed cannot be used"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size would change the recipe"),
    ],
)
def test_options_that_cannot_work(tmp_path, fields, message) -> None:
    with pytest.raises(UserError, match=message):
        make_arguments(tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_a_launcher_that_cannot_work(tmp_path, monkeypatch, name) -> None:
    """`accelerate launch --use_fsdp` leaves its choice in the environment."""
    monkeypatch.setenv(name, "true")
    with pytest.raises(UserError, match="accelerate launch --multi_gpu"):
        make_arguments(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(name, "false")
    make_arguments(tmp_path / "run")


def test_data_parallel_training_is_what_is_left() -> None:
    check_launcher(environment={"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "8"})
