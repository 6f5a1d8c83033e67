"""Training arguments: each optimizer has its own default rate, and refuses one that is far too high."""

import warnings
from pathlib import Path

import pytest

from ladder_training.config.arguments import RATES, LadderTrainingArguments
from ladder_training.errors import UserError


def arguments(folder: Path, **fields: object) -> LadderTrainingArguments:
    return LadderTrainingArguments(str(folder), use_cpu=True, report_to="none", **fields)


@pytest.mark.parametrize(("optimizer", "rate"), [("lars", 0.45), ("sgd", 0.05), ("adamw", 2e-3)])
def test_each_optimizer_has_its_own_default_rate(tmp_path: Path, optimizer: str, rate: float) -> None:
    made = arguments(tmp_path, optimizer=optimizer)
    assert made.learning_rate == made.peak_learning_rate == rate
    assert arguments(tmp_path, optimizer=optimizer, learning_rate=3e-3).peak_learning_rate == 3e-3


def test_the_default_is_within_its_own_range() -> None:
    assert all(rates.least < rates.default < rates.most for rates in RATES.values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizer": "adamw", "learning_rate": 0.45}, r"learning_rate 0\.45 is far too high for the optimizer adamw"),
        ({"optimizer": "sgd", "learning_rate": 45.0}, "its range is 1e-05 to 10, its default 0.05"),
        (
            {"optimizer": "adamw", "base_learning_rate": 0.05, "per_device_train_batch_size": 1024},
            r"base_learning_rate 0\.05 is 0\.2 at 1024 images and is far too high",
        ),
    ],
)
def test_a_rate_far_above_the_range_is_refused(tmp_path: Path, fields: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        arguments(tmp_path, **fields)


def test_a_rate_far_below_the_range_is_said_and_used(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1e-05 is very low for the optimizer lars"):
        assert arguments(tmp_path, optimizer="lars", learning_rate=1e-5).peak_learning_rate == 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert arguments(tmp_path, optimizer="adamw", learning_rate=1e-5).peak_learning_rate == 1e-5
        assert arguments(tmp_path, learning_rate=0.0).peak_learning_rate == 0.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"torch_compile_backend": "inductr"}, "no backend 'inductr'; did you mean inductor?"),
        ({"torch_compile_mode": "nope"}, "torch_compile_mode must be one of default, .*, got 'nope'"),
    ],
)
def test_compilers_that_do_not_exist_are_refused(tmp_path: Path, fields: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        LadderTrainingArguments(output_dir=str(tmp_path), **fields)


@pytest.mark.parametrize("seed", [1.5, "a", True, -1])
def test_seeds_are_whole_numbers(tmp_path: Path, seed: object) -> None:
    for name in ("seed", "data_seed"):
        with pytest.raises(ValueError, match=f"^{name} must be "):
            arguments(tmp_path, **{name: seed})
    assert arguments(tmp_path, data_seed=None).data_seed is None
