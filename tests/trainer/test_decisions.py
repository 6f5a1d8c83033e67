"""Two processes decide together: which checkpoint, whether to save, whether to stop."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.trainer_utils import SaveStrategy

from helpers.models import tiny_resnet
from helpers.processes import run_together
from helpers.training import make_arguments, make_model
from helpers.view_dataset import ViewPairs
from ladder_training.errors import LevelCollapsed, NotFinite, TrainingStopped, UserError
from ladder_training.trainer import resuming
from ladder_training.trainer import trainer as trainer_module
from ladder_training.trainer.callbacks import MonitorCallback
from ladder_training.trainer.monitor import HeldOutImages, MonitorMetrics
from ladder_training.trainer.resuming import agreed_checkpoint
from ladder_training.trainer.trainer import LadderTrainer

IMAGES = HeldOutImages(torch.zeros(4, 32, 32, 3, dtype=torch.uint8).numpy(), None, (0.5,) * 3, (0.5,) * 3)


def make_trainer(folder: Path, **fields: Any) -> LadderTrainer:
    arguments = {"max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 0.05, **fields}
    return LadderTrainer(make_model(tiny_resnet()), make_arguments(folder, **arguments), ViewPairs(16))


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_one_folder_each_is_refused_by_both_processes(tmp_path, monkeypatch) -> None:
    """Process 0 has a checkpoint and process 1 has none: nobody trains, nothing is written."""
    monkeypatch.setattr(resuming, "_WAIT", 0.01)

    def prepare(rank: int) -> None:
        make_trainer(tmp_path / "0", save_strategy="steps", save_steps=2, max_steps=2).train()

    run_together(prepare)
    assert checkpoints(tmp_path / "0") == ["checkpoint-2"]
    (tmp_path / "1").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    errors = run_together(lambda rank: make_trainer(tmp_path / str(rank)).train(resume_from_checkpoint=True))
    assert all(type(error) is UserError for error in errors)
    assert str(errors[0]) == str(errors[1])
    assert "process 1 does not see the same files" in str(errors[0])
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_process_0_chooses_and_every_process_needs_its_own_position(tmp_path) -> None:
    run_together(lambda rank: make_trainer(tmp_path, save_strategy="steps", save_steps=2).train())
    assert run_together(lambda rank: agreed_checkpoint(tmp_path, rank)) == [tmp_path / "checkpoint-4"] * 2
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"cut")
    assert run_together(lambda rank: agreed_checkpoint(tmp_path, rank)) == [tmp_path / "checkpoint-2"] * 2
    three = run_together(lambda rank: agreed_checkpoint(tmp_path, rank), count=3)
    assert [str(error) for error in three] == [str(three[0])] * 3
    assert "holds no loader_state_2.json" in str(three[0])
    shutil.rmtree(tmp_path / "checkpoint-2")
    shutil.rmtree(tmp_path / "damaged-checkpoint-4")
    assert run_together(lambda rank: agreed_checkpoint(tmp_path, rank)) == [None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.fixture
def looks(monkeypatch):
    """Each process sees other held-out figures, as with running statistics of its own."""

    def replace(figures) -> None:
        monkeypatch.setattr(trainer_module, "look", lambda model, *_: figures(torch.distributed.get_rank()))

    return replace


def watched(folder: Path, **fields: Any) -> LadderTrainer:
    trainer = make_trainer(folder, monitor_steps=1, **fields)
    trainer.held_out = IMAGES
    trainer.add_callback(MonitorCallback(trainer.look))
    return trainer


@pytest.mark.parametrize("best", [0, 1])
def test_one_look_decides_whether_to_save(tmp_path, looks, best) -> None:
    """The process `best` sees a new best value at every step, the other one never after the first."""
    numbers = iter(range(100))
    looks(lambda rank: MonitorMetrics(knn={"all": float(next(numbers)) if rank == best else 0.5}))

    def work(rank: int) -> Any:
        trainer = watched(tmp_path, save_total_limit=None)
        trainer.args.metric_for_best_model, trainer.args.greater_is_better = "knn/all", True
        trainer.args.save_strategy = SaveStrategy.BEST
        trainer.train()
        return trainer.state.best_metric

    first, second = run_together(work)
    assert first == second == (4.0 if best == 0 else 0.5)  # the look before the first step saw 0
    assert checkpoints(tmp_path) == [f"checkpoint-{step}" for step in ((1, 2, 3, 4) if best == 0 else (1,))]


def test_a_collapse_that_process_0_sees_stops_both_and_one_that_only_process_1_sees_stops_none(
    tmp_path, looks, monkeypatch
) -> None:
    monkeypatch.setattr(trainer_module, "BATCH_NORM_SETTLED", 2)

    def work(rank: int) -> int:
        trainer = watched(tmp_path / "run")
        trainer.train()
        return trainer.state.global_step

    looks(lambda rank: MonitorMetrics(std={"stage4.global": 0.9 if rank else 0.001}))
    errors = run_together(work)
    assert [(type(error), error.step) for error in errors] == [(LevelCollapsed, 2)] * 2
    looks(lambda rank: MonitorMetrics(std={"stage4.global": 0.001 if rank else 0.9}))
    assert run_together(work) == [4, 4]


@pytest.mark.parametrize("failing", [0, 1])
def test_too_many_unreadable_images_in_one_process_stop_both_at_the_same_step(tmp_path, failing) -> None:
    message = "9 of the 10 images read so far cannot be read"

    def work(rank: int) -> tuple[str, str, int]:
        trainer = make_trainer(tmp_path)
        loader, made = trainer.get_train_dataloader(), []
        take = loader._batches._consume

        def consume(consumed: Any) -> None:
            made.append(1)
            if rank == failing and len(made) == 3:
                raise TrainingStopped(message)
            take(consumed)

        trainer.get_train_dataloader = lambda: loader
        loader._batches._consume = consume
        try:
            trainer.train()
        except TrainingStopped as error:
            return type(error).__name__, str(error), trainer.state.global_step
        return "finished", "", trainer.state.global_step

    assert run_together(work) == [("TrainingStopped", message, 2)] * 2


def test_weights_that_are_not_finite_in_one_process_are_saved_by_none(tmp_path) -> None:
    def work(rank: int) -> str:
        trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=2)
        if rank == 1:
            check = trainer._check_finite

            def broken() -> None:
                trainer.pretraining_model.backbone.embedder.embedder.normalization.running_mean.fill_(float("nan"))
                check()

            trainer._check_finite = broken
        try:
            trainer.train()
        except NotFinite as error:
            return str(error)
        return "finished"

    first, second = run_together(work)
    assert first == second
    assert "running_mean is not finite at step 2" in first
    assert checkpoints(tmp_path) == []


def test_ddp_keeps_gradients_where_it_exchanges_them(tmp_path) -> None:
    """Without its own buckets as the gradients' memory, DDP holds and copies each of them twice."""
    from accelerate import DistributedDataParallelKwargs

    handlers = make_trainer(tmp_path)._build_accelerator_args()["kwargs_handlers"]
    found = [handler for handler in handlers if isinstance(handler, DistributedDataParallelKwargs)]
    assert [handler.gradient_as_bucket_view for handler in found] == [True]
