"""The checks that stop a run, with values on both sides of each limit."""

import math
import pickle

import pytest

from ladder_training.errors import LevelCollapsed, NotFinite
from ladder_training.trainer.stops import check_losses, check_spread


def test_a_loss_that_is_not_finite_is_named_by_its_level() -> None:
    check_losses({"loss": 3.0, "loss/stage1.local": 1.0, "momentum": math.nan}, 5)
    with pytest.raises(NotFinite, match=r"the loss of stage1\.local is nan at step 5: lower the learning rate"):
        check_losses({"loss": math.nan, "loss/stage1.local": math.nan}, 5)
    with pytest.raises(NotFinite, match=r"the loss of the total is inf at step 6"):
        check_losses({"loss": math.inf, "loss/stage1.local": 1.0}, 6)


@pytest.mark.parametrize("spread", [0.0999, 0.0, math.nan])
def test_a_level_below_the_limit_has_collapsed(spread: float) -> None:
    check_spread({"stage1.local": 0.1}, 7, 0.1)
    with pytest.raises(LevelCollapsed) as caught:
        check_spread({"stage1.local": 0.5, "stage4.global": spread}, 7, 0.1)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.level, error.step, error.limit) == ("stage4.global", 7, 0.1)
    assert error.spread == spread or math.isnan(spread)
    assert str(error) == (
        f"stage4.global has collapsed at step 7: the standard deviation of its projections is {spread:.3f} of a "
        "healthy one (limit 0.1); lower the learning rate, raise base_momentum or the batch size, or set "
        "stop_on_collapse to false"
    )


def test_a_job_that_stops_together_tells_it_once() -> None:
    from types import SimpleNamespace

    from ladder_training.runs.interruption import Interrupted
    from ladder_training.trainer.saving import SavingTrainer

    trainer = SimpleNamespace(
        _steps=SimpleNamespace(any=lambda flag: True),
        stop_request=SimpleNamespace(number=None),
        state=SimpleNamespace(global_step=3),
        _resumable_step=3,
        args=None,
        control=None,
        callback_handler=SimpleNamespace(on_train_end=lambda *values: None),
    )
    with pytest.raises(Interrupted) as caught:
        SavingTrainer.end_if_asked(trainer)
    assert caught.value.shared and caught.value.code == 143
