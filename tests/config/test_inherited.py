"""Every field of transformers' TrainingArguments works in pretraining, has no say, or is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from ladder_training import LadderTrainingArguments
from ladder_training.config.fields import fields_of
from ladder_training.config.inherited import CHECKED_BY_ARGUMENTS, HARMLESS, RANGES, REFUSED, SUPPORTED
from ladder_training.errors import UserError

OTHER_VALUES = {
    "optim": "adafactor",
    "optim_args": "a=1",
    "optim_target_modules": "all",
    "average_tokens_across_devices": False,
    "label_smoothing_factor": 0.1,
    "activation_checkpointing_kwargs": {"use_reentrant": True},
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "include_num_input_tokens_seen": "all",
    "eval_accumulation_steps": 2,
    "include_for_metrics": ["inputs"],
    "eval_do_concat_batches": False,
    "accelerator_config": {"split_batches": True},
    "parallelism_config": object(),
    "dataloader_prefetch_factor": 4,
    "dataloader_multiprocessing_context": "spawn",
    "dataloader_in_order": False,
    "label_names": ["labels"],
    "train_sampling_strategy": "sequential",
    "length_column_name": "size",
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2},
    "deepspeed": {"zero_optimization": {"stage": 2}},
}


def arguments(folder: Path, **values: Any) -> LadderTrainingArguments:
    return LadderTrainingArguments(str(folder), use_cpu=True, report_to="none", **values)


def test_every_field_is_in_one_table() -> None:
    tables = [SUPPORTED, HARMLESS, REFUSED, CHECKED_BY_ARGUMENTS]
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    inherited = {name for name, (_, item) in fields_of(TrainingArguments).items() if item.init}
    # Fields of a later transformers must be looked at: none may be accepted and ignored.
    assert inherited <= set(names)
    assert set(RANGES) <= SUPPORTED


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        arguments(tmp_path, **{name: OTHER_VALUES.get(name, True)})
    assert str(caught.value) == f"{name} {REFUSED[name]}"


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_true_anyway_is_accepted(name: str, tmp_path: Path) -> None:
    arguments(tmp_path, **{name: 0 if name == "local_rank" else True})


@pytest.mark.parametrize("name", RANGES)
def test_numbers_are_checked_in_python_too(name: str, tmp_path: Path) -> None:
    for value in (-2, float("nan"), float("inf")):
        with pytest.raises(UserError, match=rf"^{name} must be .*, got {value}$"):
            arguments(tmp_path, **{name: value})


def test_arguments_that_were_made_can_be_made_again(tmp_path: Path) -> None:
    import dataclasses

    first = arguments(tmp_path, save_strategy="epoch", save_total_limit=3)
    again = dataclasses.replace(first, max_steps=7)
    assert (again.max_steps, again.save_total_limit) == (7, 3)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, 2),
        ({"save_strategy": "epoch"}, None),
        ({"save_strategy": "epoch", "save_total_limit": 1}, 1),
        ({"save_total_limit": None}, None),
    ],
)
def test_checkpoints_of_every_pass_are_kept_unless_a_limit_is_given(
    values: dict[str, Any], kept: int | None, tmp_path: Path
) -> None:
    assert arguments(tmp_path, **values).save_total_limit == kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adamw", "lars_eta": 0.01}, "lars_eta has no effect on the optimizer adamw: it is for lars"),
        ({"optimizer": "adamw", "momentum": 0.5}, "momentum has no effect on the optimizer adamw: it is for lars"),
        ({"adam_beta2": 0.95}, "adam_beta2 has no effect on the optimizer lars: it is for adamw"),
        ({"knn_neighbours": 0}, "knn_neighbours must be at least 1, got 0"),
        ({"knn_temperature": float("nan")}, "knn_temperature must be greater than 0, got nan"),
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "knn/stage4"},
            "load_best_model_at_end needs looks and checkpoints at the same steps: eval_strategy and save_strategy "
            "both steps or both epoch, or save_strategy best; they are no and steps",
        ),
        ({"optimizer": "adam"}, "optimizer must be one of lars, sgd, adamw, got 'adam'; did you mean adamw?"),
    ],
)
def test_our_own_fields_are_checked_in_python_too(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        arguments(tmp_path, **values)
    assert str(caught.value) == message
