"""A network in parts is refused in one line, before anything is written."""

import pytest

from helpers.processes import run_together
from helpers.training import make_arguments
from ladder_training.cli.entry import main
from ladder_training.config.launchers import check_launcher, check_together, started_alone
from ladder_training.errors import UserError
from ladder_training.evaluation.tuning import make_accelerator


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
    check_launcher(
        environment={"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "WORLD_SIZE": "8"}
    )


@pytest.mark.parametrize(
    ("variable", "asked", "fields", "name", "own", "option"),
    [
        ("MIXED_PRECISION", "bf16", {}, "mixed_precision bf16", "no", "--bf16 true"),
        ("MIXED_PRECISION", "fp16", {"bf16": True}, "mixed_precision fp16", "bf16", "--fp16 true"),
        ("DYNAMO_BACKEND", "INDUCTOR", {}, "dynamo_backend inductor", "no", "--torch_compile true"),
    ],
)
def test_what_a_launcher_asks_for_beside_the_run_is_not_taken_unrecorded(
    tmp_path, monkeypatch, variable, asked, fields, name, own, option
) -> None:
    """`accelerate launch --mixed_precision bf16` trained in bfloat16, while `run.json` and the card said float32."""
    monkeypatch.setenv(f"ACCELERATE_{variable}", asked)
    with pytest.raises(UserError) as refused:
        make_arguments(tmp_path / "run", **fields)
    assert str(refused.value) == (
        f"`accelerate launch` or its config file asks for {name}, but the options of the run itself, which are "
        f"recorded with it, ask for {own}: start it with `accelerate launch --{name.split()[0]} {own}`, or give "
        f"`ladder pretrain` {option}"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variable", "fields"),
    [("MIXED_PRECISION", {"bf16": True}), ("DYNAMO_BACKEND", {"torch_compile": True})],
)
def test_a_launcher_and_a_run_that_ask_for_the_same(tmp_path, monkeypatch, variable, fields) -> None:
    monkeypatch.setenv(f"ACCELERATE_{variable}", {"MIXED_PRECISION": "bf16", "DYNAMO_BACKEND": "INDUCTOR"}[variable])
    assert make_arguments(tmp_path / "run", **fields)


def test_precisions_that_nothing_here_computes_with(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UserError, match=r"mixed_precision fp8, which is not supported: it can be no, bf16, fp16$"):
        make_accelerator("cpu")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UserError, match="asks for mixed_precision bf16, but"):
        make_accelerator("cpu")
    assert make_accelerator("cpu", "bf16").mixed_precision == "bf16"


def test_processes_without_a_gpu_train_together_also_if_no_device_is_named(tmp_path, monkeypatch) -> None:
    """As `torchrun` starts them: each took itself for the only one, and both wrote the same folder."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)

    def work(rank: int) -> tuple[int, int]:
        arguments = make_arguments(tmp_path / "run", use_cpu=False)
        return arguments.process_index, arguments.world_size

    assert run_together(work) == [(0, 2), (1, 2)]


def test_processes_that_would_train_apart_are_refused() -> None:
    check_together(1, 1, "mps")
    check_together(2, 2, "cpu")
    with pytest.raises(UserError) as refused:
        check_together(2, 1, "mps")
    assert str(refused.value) == (
        "a launcher has started 2 processes, but on mps accelerate lets 1 work together: start one process, or give "
        "--use_cpu true"
    )


def test_one_process_in_place_of_several_is_said() -> None:
    """What `accelerate launch --num_processes 2` leaves, which starts one: nothing was said."""
    left = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert started_alone(left) == (
        "`accelerate launch` was asked for several processes, but has started this one only: give it --multi_gpu, or "
        "start with `torchrun --nproc_per_node N -m ladder_training ...`"
    )
    for name in ("WORLD_SIZE", "PMI_SIZE"):
        assert started_alone({**left, name: "2"}) is None
    assert started_alone({"ACCELERATE_MIXED_PRECISION": "no"}) is None, "asked for one"
    assert started_alone({"MASTER_PORT": "29500"}) is None, "no launcher"


def test_a_command_that_is_shared_says_it(monkeypatch, capsys) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert main(["evaluate", "knn", "--model", "/nothing", "--dataset", "digits"]) == 2
    assert "`accelerate launch` was asked for several processes" in capsys.readouterr().err
    assert main(["card", "/nothing"]) == 2
    assert "accelerate" not in capsys.readouterr().err
