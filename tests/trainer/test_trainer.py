"""The trainer: updates of the target, accumulation, parameter groups, logs, stops, exact resume."""

import copy
import json
import math

import pytest
import torch
from transformers import TrainerCallback

from helpers.training import assert_equal, make_arguments, make_model, weights
from helpers.view_dataset import ViewPairs
from ladder_training.errors import LevelCollapsed, NotFinite, UserError
from ladder_training.trainer.lars import Lars
from ladder_training.trainer.momentum import target_momentum
from ladder_training.trainer.monitor import MonitorMetrics
from ladder_training.trainer.stops import BATCH_NORM_SETTLED
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder import LadderSiameseForPreTraining


class Recorder(TrainerCallback):
    """Keeps the online weights right after each optimizer step, and the gradients right before."""

    def __init__(self) -> None:
        self.online: list[dict[str, torch.Tensor]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    def on_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.online.append({n: p.detach().double() for n, p in model.named_parameters() if not n.startswith("target.")})


@pytest.mark.parametrize("accumulation", [1, 3])
def test_target_is_the_hand_computed_average_after_each_optimizer_step(tiny_backbone, tmp_path, accumulation) -> None:
    model, recorder = make_model(tiny_backbone, base_momentum=0.6), Recorder()
    start = {
        n.removeprefix("target."): p.detach().double() for n, p in model.named_parameters() if n.startswith("target.")
    }
    calls = []
    update = model.update_target
    model.update_target = lambda momentum: (calls.append(momentum), update(momentum))
    args = make_arguments(tmp_path, gradient_accumulation_steps=accumulation, max_steps=5)
    LadderTrainer(model, args, ViewPairs(), callbacks=[recorder]).train()
    assert calls == [target_momentum(step, 5, 0.6) for step in range(5)]
    for name, average in start.items():
        for momentum, online in zip(calls, recorder.online, strict=True):
            average = momentum * average + (1 - momentum) * online[name]
        got = dict(model.named_parameters())[f"target.{name}"].double()
        torch.testing.assert_close(got, average, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in model.target.parameters())


def test_accumulated_gradient_is_the_mean_over_micro_batches(tiny_backbone, tmp_path) -> None:
    model, recorder = make_model(tiny_backbone), Recorder()
    reference = copy.deepcopy(model).train()
    seen = []
    args = make_arguments(tmp_path, gradient_accumulation_steps=3, max_steps=1, logging_steps=1)
    trainer = LadderTrainer(model, args, ViewPairs(), callbacks=[recorder])
    model.register_forward_pre_hook(lambda m, a, kwargs: seen.append(kwargs), with_kwargs=True)
    trainer.train()
    assert len(seen) == 3
    losses = []
    for batch in seen:
        loss = reference(**batch).loss
        losses.append(loss.item())
        (loss / 3).backward()
    for name, parameter in reference.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(recorder.gradients[0][name], parameter.grad, rtol=1e-5, atol=1e-8)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_every_trained_parameter_is_in_one_group_and_the_target_in_none(tiny_backbone, tmp_path) -> None:
    model = make_model(tiny_backbone)
    trainer = LadderTrainer(model, make_arguments(tmp_path, weight_decay=0.1), ViewPairs())
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, Lars)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    trained = [id(p) for n, p in model.named_parameters() if not n.startswith("target.")]
    assert sorted(grouped) == sorted(trained)
    for group in optimizer.param_groups:
        dimensions = {p.ndim > 1 for p in group["params"]}
        assert dimensions == {group["weight_decay"] == 0.1}


@pytest.mark.parametrize(("optimizer", "cls"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_other_optimizers(tiny_backbone, tmp_path, optimizer, cls) -> None:
    args = make_arguments(tmp_path, optimizer=optimizer, learning_rate=1e-3)
    trainer = LadderTrainer(make_model(tiny_backbone), args, ViewPairs())
    assert type(trainer.create_optimizer()) is cls
    trainer.train()


def test_learning_rate_scales_with_the_whole_batch_and_warms_up_in_passes(tiny_backbone, tmp_path) -> None:
    args = make_arguments(
        tmp_path,
        max_steps=-1,
        num_train_epochs=4,
        base_learning_rate=0.32,
        warmup_epochs=1,
        gradient_accumulation_steps=2,
        logging_steps=1,
    )
    trainer = LadderTrainer(make_model(tiny_backbone), args, ViewPairs(24))
    trainer.train()
    peak = 0.32 * 8 / 256
    assert args.peak_learning_rate == pytest.approx(peak)
    assert trainer.state.global_step == 12  # 24 images, 8 a step: 3 steps a pass
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    expected = [peak * k / 3 for k in range(3)] + [peak * (1 + math.cos(math.pi * k / 9)) / 2 for k in range(9)]
    assert rates == pytest.approx(expected)
    assert trainer.state.epoch == pytest.approx(4)


def test_no_silent_clipping_and_no_dropped_columns(tmp_path) -> None:
    args = make_arguments(tmp_path)
    assert args.max_grad_norm == 0
    assert not args.remove_unused_columns
    assert not args.logging_nan_inf_filter


def test_logs_hold_every_levels_loss_averaged_over_the_window(tiny_backbone, tmp_path) -> None:
    model = make_model(tiny_backbone)
    seen: list[dict[str, float]] = []
    args = make_arguments(tmp_path, max_steps=4, logging_steps=2)
    trainer = LadderTrainer(model, args, ViewPairs())
    model.register_forward_hook(lambda m, a, out: seen.append({k: v.item() for k, v in out.level_losses.items()}))
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 2
    for window, entry in enumerate(entries):
        total = 0.0
        for stage, kind, weight in model.config.levels:
            mean = sum(losses[f"{stage}.{kind}"] for losses in seen[2 * window : 2 * window + 2]) / 2
            assert entry[f"loss/{stage}.{kind}"] == pytest.approx(mean, rel=1e-5)
            total += weight * mean
        assert entry["loss"] == pytest.approx(total, rel=1e-5)
        assert entry["momentum"] == target_momentum(2 * window + 1, 4, model.config.base_momentum)
        assert entry["images_per_second"] > 0


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_level(tiny_backbone, tmp_path) -> None:
    args = make_arguments(tmp_path, logging_steps=1, save_strategy="steps", save_steps=1, max_steps=20)
    trainer = LadderTrainer(make_model(tiny_backbone), args, ViewPairs(bad=5))
    with pytest.raises(NotFinite, match=r"stage1\.local is nan"):
        trainer.train()
    saved = list(tmp_path.glob("checkpoint-*"))
    for checkpoint in saved:
        assert int(checkpoint.name.split("-")[1]) < trainer.state.global_step


def test_weights_that_are_not_finite_are_never_saved(tiny_backbone, tmp_path) -> None:
    model = make_model(tiny_backbone)
    args = make_arguments(tmp_path, logging_steps=100, save_strategy="steps", save_steps=2, max_steps=4)

    class Poison(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **kwargs) -> None:
            if state.global_step == 3:
                model.backbone.encoder.stages[1].layers[0].layer[0].convolution.weight.data.fill_(float("inf"))

    trainer = LadderTrainer(model, args, ViewPairs(), callbacks=[Poison()])
    with pytest.raises(NotFinite, match=r"backbone\.encoder\.stages\.1\..* is not finite at step 4"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_collapsed_level_stops_the_run_and_is_named(tiny_backbone, tmp_path) -> None:
    model = make_model(tiny_backbone)
    head = model.projectors["stage3"]["global"]
    head.output.weight.data[:] = head.output.weight.data[:1]  # every direction the same: a point after normalising
    head.normalization.weight.data.fill_(1e-6)
    head.normalization.bias.data.fill_(1.0)
    args = make_arguments(tmp_path, learning_rate=1e-9, logging_steps=1)
    with pytest.raises(LevelCollapsed, match=r"stage3\.global has collapsed at step 1") as caught:
        LadderTrainer(model, args, ViewPairs()).train()
    assert (caught.value.level, caught.value.step, caught.value.limit) == ("stage3.global", 1, args.collapse_threshold)
    assert 0 <= caught.value.spread < args.collapse_threshold
    args.stop_on_collapse = False
    LadderTrainer(model, args, ViewPairs()).train()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop", [3, 8])
def test_same_seed_gives_equal_bits_and_so_does_a_resumed_run(tiny_backbone, tmp_path, stop, accumulation) -> None:
    """24 images, 4 or 8 a step, 11 steps: the stop lies in the first and in a later pass."""

    def run(folder: str, last: int, resume: bool | None = None) -> LadderSiameseForPreTraining:
        model = make_model(tiny_backbone)
        args = make_arguments(
            tmp_path / folder,
            max_steps=11,
            gradient_accumulation_steps=accumulation,
            save_strategy="steps",
            save_steps=stop,
            save_total_limit=1,
        )

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs) -> None:
                control.should_training_stop |= state.global_step >= last

        LadderTrainer(model, args, ViewPairs(24), callbacks=[Stop()]).train(resume_from_checkpoint=resume)
        return model

    whole = weights(run("whole", 11))
    assert_equal(whole, weights(run("again", 11)))
    run("broken", stop)
    resumed = run("broken", 11, resume=True)
    assert_equal(whole, weights(resumed))
    assert not any(p.requires_grad for p in resumed.target.parameters())


def test_going_on_from_the_last_step_trains_no_further(tiny_backbone, tmp_path) -> None:
    """A run killed between its last checkpoint and its result."""
    args = make_arguments(tmp_path, save_strategy="steps", save_steps=3)
    model = make_model(tiny_backbone)
    LadderTrainer(model, args, ViewPairs()).train()
    again = make_model(tiny_backbone)
    trainer = LadderTrainer(again, args, ViewPairs())
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    assert_equal(weights(model), weights(again))
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-3", "checkpoint-6"]


def test_save_total_limit_and_the_files_of_a_checkpoint(tiny_backbone, tmp_path) -> None:
    args = make_arguments(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=2, max_steps=4)
    LadderTrainer(make_model(tiny_backbone), args, ViewPairs()).train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4", "log.jsonl"]
    names = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert {"model.safetensors", "config.json", "manifest.json", "optimizer.pt", "loader_state_0.json"} <= names
    loaded = LadderSiameseForPreTraining.from_pretrained(tmp_path / "checkpoint-4")
    assert not any(p.requires_grad for p in loaded.target.parameters())
    assert json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["global_step"] == 4


def test_errors_a_user_can_cause(tiny_backbone, tmp_path) -> None:
    with pytest.raises(UserError, match="optimizer must be one of"):
        make_arguments(tmp_path, optimizer="lamb")
    with pytest.raises(UserError, match="no complete checkpoint"):
        LadderTrainer(make_model(tiny_backbone), make_arguments(tmp_path), ViewPairs()).train(
            resume_from_checkpoint=True
        )
    with pytest.raises(UserError, match="fewer than one"):
        args = make_arguments(tmp_path, per_device_train_batch_size=25)
        LadderTrainer(make_model(tiny_backbone), args, ViewPairs(24)).train()


def test_a_look_judges_collapse_only_once_batch_norm_has_settled(tiny_backbone, tmp_path, monkeypatch) -> None:
    """In the first steps, running statistics are near their start, and held-out projections all alike."""
    trainer = LadderTrainer(make_model(tiny_backbone), make_arguments(tmp_path), ViewPairs())
    monkeypatch.setattr(trainer, "look", lambda: MonitorMetrics(std={"stage4.global": 0.01}))
    trainer.state.global_step = BATCH_NORM_SETTLED - 1
    assert trainer.evaluate() == {"eval_std/stage4.global": 0.01}
    trainer.state.global_step = BATCH_NORM_SETTLED
    with pytest.raises(LevelCollapsed, match=r"stage4\.global has collapsed at step 50"):
        trainer.evaluate()
