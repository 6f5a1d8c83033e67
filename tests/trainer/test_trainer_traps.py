"""What transformers' Trainer, mixed precision and several devices do to a momentum target unless it is prevented."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from helpers.training import make_arguments, make_model
from helpers.view_dataset import ViewPairs
from ladder_training.config.arguments import LadderTrainingArguments
from ladder_training.errors import UserError
from ladder_training.trainer.callbacks import TargetUpdateCallback
from ladder_training.trainer.momentum import target_momentum
from ladder_training.trainer.trainer import LadderTrainer
from modeling_ladder.batch_norm import LadderBatchNorm, convert_batch_norms


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_activation_checkpointing_is_refused_because_batch_norm_would_count_twice(tmp_path, name) -> None:
    with pytest.raises(UserError, match=name):
        make_arguments(tmp_path, **{name: True})


def test_several_gpus_in_one_process_are_refused(tiny_backbone, tmp_path, monkeypatch) -> None:
    """transformers would wrap the model in DataParallel, whose replicas lose their statistics."""
    args = make_arguments(tmp_path)
    monkeypatch.setattr(LadderTrainingArguments, "n_gpu", 2)
    with pytest.raises(UserError, match="accelerate launch"):
        LadderTrainer(make_model(tiny_backbone), args, ViewPairs())


def test_a_skipped_optimizer_step_leaves_the_target_alone(tiny_backbone) -> None:
    """The scaler of float16 skips steps with overflows; the target must not be pulled towards unmoved weights."""
    model = make_model(tiny_backbone)
    updates: list[float] = []
    model.update_target = updates.append
    accelerator = SimpleNamespace(optimizer_step_was_skipped=True, unwrap_model=lambda wrapped: wrapped)
    callback = TargetUpdateCallback(accelerator, lambda: 0.5)
    state = SimpleNamespace(global_step=3, max_steps=10, epoch=0.0)
    callback.on_step_end(None, state, None, model=model)
    assert (updates, state.epoch, callback.last_momentum) == ([], 0.5, None)
    accelerator.optimizer_step_was_skipped = False
    callback.on_step_end(None, state, None, model=model)
    assert updates == [target_momentum(2, 10, model.config.base_momentum)] == [callback.last_momentum]


def test_bfloat16_autocast_stays_close_and_everything_kept_is_float32(tiny_backbone, tmp_path) -> None:
    losses = {}
    for bf16 in (False, True):
        model = make_model(tiny_backbone)
        # Small steps: what differs is the arithmetic, not two diverging runs.
        args = make_arguments(tmp_path, bf16=bf16, learning_rate=1e-3, logging_steps=1, max_steps=4)
        trainer = LadderTrainer(model, args, ViewPairs())
        inside: set[torch.dtype] = set()
        head = model.projectors["stage1"]["local"].output
        head.register_forward_hook(lambda m, a, out, seen=inside: seen.add(out.dtype))
        trainer.train()
        assert inside == {torch.bfloat16 if bf16 else torch.float32}
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert {b.dtype for b in model.buffers()} == {torch.float32, torch.int64}
        assert trainer.state.log_history[0]["loss"] > 0
        losses[bf16] = [
            [value for key, value in sorted(entry.items()) if key.startswith("loss/")]
            for entry in trainer.state.log_history
            if "loss" in entry
        ]
    assert losses[True] != losses[False]
    for half, full in zip(losses[True], losses[False], strict=True):
        assert half == pytest.approx(full, rel=0.03)


def test_train_after_eval_puts_the_target_back_in_train_mode(tiny_backbone) -> None:
    """The Trainer calls eval() and train() around every evaluation."""
    model = make_model(tiny_backbone).eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.target.modules())


def test_synchronised_batch_norm_covers_both_networks_and_keeps_weights_and_the_frozen_target(
    tiny_backbone, view_pairs
) -> None:
    """What `sync_batch_norm` does in several processes."""
    model = make_model(tiny_backbone).eval()
    batch = view_pairs()
    expected, state = model(**batch).loss, model.state_dict()
    assert convert_batch_norms(model, synchronised=True) is model
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(m.synchronised for m in norms)
    assert any(isinstance(m, LadderBatchNorm) for m in model.target.projectors.modules())
    assert model.state_dict().keys() == state.keys()
    assert not any(p.requires_grad for p in model.target.parameters())
    assert model(**batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("world_size", "wanted", "synchronised", "broadcast"),
    [(1, True, False, None), (2, True, True, False), (2, False, False, None)],
)
def test_the_trainer_synchronises_batch_norm_of_several_processes_only(
    tiny_backbone, monkeypatch, world_size, wanted, synchronised, broadcast
) -> None:
    """Equal running statistics need no broadcast at each forward; without synchronisation DDP's default stays."""
    # Any error after the conversion: there is no other process to go on with.
    monkeypatch.setattr("ladder_training.trainer.trainer._all_parameters_used", lambda model: 1 / 0)
    args = SimpleNamespace(
        n_gpu=1,
        sync_batch_norm=wanted,
        world_size=world_size,
        device=torch.device("cpu"),
        ddp_find_unused_parameters=None,
        ddp_broadcast_buffers=None,
        channels_last=True,
    )
    model = make_model(tiny_backbone)
    with pytest.raises(ZeroDivisionError):
        LadderTrainer(model, args, ViewPairs())
    assert {m.synchronised for m in model.modules() if isinstance(m, LadderBatchNorm)} == {synchronised}
    assert args.ddp_broadcast_buffers is broadcast


def test_the_peak_rate_counts_processes_and_accumulation(tmp_path, monkeypatch) -> None:
    args = make_arguments(
        tmp_path, base_learning_rate=0.2, per_device_train_batch_size=16, gradient_accumulation_steps=4
    )
    monkeypatch.setattr(LadderTrainingArguments, "world_size", 8)
    assert args.global_batch_size == 512
    assert args.peak_learning_rate == pytest.approx(0.4)


def test_channels_last_can_be_turned_off_and_changes_only_the_rounding(tiny_backbone, tmp_path) -> None:
    logged = {}
    for wanted in (True, False):
        model = make_model(tiny_backbone)
        seen: set[bool] = set()
        model.backbone.register_forward_pre_hook(
            lambda m, a, kwargs, seen=seen: seen.add(
                kwargs["pixel_values"].is_contiguous(memory_format=torch.channels_last)
            ),
            with_kwargs=True,
        )
        args = make_arguments(tmp_path, channels_last=wanted, max_steps=1, logging_steps=1)
        trainer = LadderTrainer(model, args, ViewPairs())
        trainer.train()
        assert seen == {wanted}
        kernel = model.target.backbone.encoder.stages[1].layers[0].layer[0].convolution.weight
        assert kernel.is_contiguous(memory_format=torch.channels_last) == wanted
        assert kernel.is_contiguous() != wanted
        logged[wanted] = trainer.state.log_history[0]["loss"]
    assert logged[True] == pytest.approx(logged[False], rel=1e-4)


def test_losses_outside_training_do_not_enter_the_training_logs(tiny_backbone, tmp_path, view_pairs) -> None:
    trainer = LadderTrainer(make_model(tiny_backbone), make_arguments(tmp_path), ViewPairs())
    trainer.compute_loss(trainer.model.eval(), view_pairs())
    assert trainer._meters.averages(trainer.accelerator) == {}
    trainer.compute_loss(trainer.model.train(), view_pairs())
    assert trainer._meters.averages(trainer.accelerator)["loss/stage1.local"] > 0


@pytest.mark.parametrize(
    ("compiled", "said"),
    [
        (True, rf"torch_compile: compiled by torch {re.escape(torch.__version__)}, .*no loss: leave torch_compile out"),
        (False, "holds no loss, so there is nothing to learn from"),
    ],
)
def test_without_a_loss_nothing_is_trained(tiny_backbone, tmp_path, monkeypatch, compiled, said) -> None:
    """Compiled by torch 2.6, the model returns an output without its loss."""
    model = make_model(tiny_backbone)
    forward = model.forward

    def without_loss(**inputs: Any) -> Any:
        outputs = forward(**inputs)
        outputs.loss = None
        return outputs

    monkeypatch.setattr(model, "forward", without_loss)
    trainer = LadderTrainer(model, make_arguments(tmp_path), ViewPairs())
    trainer.args.torch_compile = compiled  # only now, so that nothing is compiled
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(UserError, match=said) as raised:
        trainer.train()
    assert "\n" not in str(raised.value)
    assert trainer.state.global_step == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_gradients_are_clipped_only_where_the_recipe_says_so(tiny_backbone, tmp_path) -> None:
    def norms(**fields: Any) -> list[float]:
        found: list[float] = []

        class Norm(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
                gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
                found.append(torch.stack(gradients).norm().item())

        args = make_arguments(tmp_path, max_steps=2, optimizer="sgd", learning_rate=1e-9, **fields)
        LadderTrainer(make_model(tiny_backbone), args, ViewPairs(), callbacks=[Norm()]).train()
        return found

    free = norms()
    limit = min(free) / 2
    assert norms(max_grad_norm=limit) == pytest.approx([limit] * 2, rel=1e-3)
    assert norms(max_grad_norm=1e9) == pytest.approx(free, rel=1e-6)
