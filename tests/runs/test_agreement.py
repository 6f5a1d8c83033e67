"""All processes take one decision: one value, or the same error, and nobody waits for ever."""

import time

import pytest

from helpers.processes import run_together
from ladder_training.errors import LevelCollapsed, NotFinite, UserError
from ladder_training.runs.agreement import StepAgreement, all_or_none, chosen_by_first, process_count


def fail(error: Exception) -> None:
    raise error


def test_one_process_only_calls_what_it_is_given() -> None:
    assert process_count() == 1
    assert chosen_by_first(lambda: 3) == all_or_none(lambda: 3) == StepAgreement().all_or_none(lambda: 3) == 3
    assert StepAgreement().any(True) and not StepAgreement().any(False)
    with pytest.raises(KeyError):
        all_or_none(lambda: {}["missing"])


def test_the_first_process_chooses_for_all() -> None:
    assert run_together(lambda rank: (chosen_by_first(lambda: f"from {rank}"), process_count())) == [("from 0", 2)] * 2


def test_an_error_of_the_choice_is_raised_everywhere() -> None:
    errors = run_together(lambda rank: chosen_by_first(lambda: fail(LevelCollapsed("stage1.local", 7, 0.01, 0.1))))
    assert [(type(error), error.level, str(error)) for error in errors] == [
        (LevelCollapsed, "stage1.local", str(errors[0]))
    ] * 2


@pytest.mark.parametrize("failing", [{0}, {1}, {0, 1}, set()])
def test_work_succeeds_everywhere_or_nowhere(failing) -> None:
    def work(rank: int) -> int:
        return all_or_none(lambda: fail(UserError(f"mistake of {rank}")) if rank in failing else rank)

    results = run_together(work)
    if not failing:
        assert results == [0, 1]
    else:
        assert [str(error) for error in results] == [f"mistake of {min(failing)}"] * 2
        assert all(type(error) is UserError for error in results)


def test_every_step_agrees_and_the_step_of_an_error_is_the_same_for_all() -> None:
    def work(rank: int) -> list[object]:
        steps, seen = StepAgreement(), []
        for step in range(5):
            seen.append(steps.any(rank == 1 and step == 2))
        for step in range(5):
            try:
                steps.all_or_none(lambda step=step: fail(NotFinite("bad")) if rank == 1 and step == 3 else None)
            except NotFinite as error:
                seen.append((step, str(error)))
                break
        return seen

    assert run_together(work) == [[False, False, True, False, False, (3, "bad")]] * 2


def test_an_agreement_of_a_step_is_cheap() -> None:
    """Two hundred agreements in far less time than two hundred steps take."""

    def work(rank: int) -> float:
        steps = StepAgreement()
        steps.any(False)
        started = time.monotonic()
        for _ in range(200):
            steps.any(False)
        return time.monotonic() - started

    assert max(run_together(work)) < 4
