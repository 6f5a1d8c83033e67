"""Means over seeds, paired differences with their intervals, and the steps it takes to reach an accuracy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of `count` values; deviation None of fewer than two."""

    mean: float | None
    std: float | None
    count: int


@dataclass(frozen=True)
class Paired:
    """Mean difference over the seeds that both methods have, and the ends of its t-interval.

    Attributes:
        mean: None without a common seed.
        low: None with fewer than two common seeds; `high` likewise.
        count: Common seeds.
        values: The difference of each seed.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int
    values: tuple[float, ...]


def summarise(values: Sequence[float]) -> Summary:
    """Mean and spread of one method's values."""
    count = len(values)
    if count == 0:
        return Summary(None, None, 0)
    mean = math.fsum(values) / count
    if count == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)), count)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Method minus baseline, seed by seed, with the 95 % t-interval of the mean.

    Args:
        values: Seed to the method's value.
        baseline: Seed to the baseline's.
    """
    differences = [values[seed] - baseline[seed] for seed in sorted(values) if seed in baseline]
    found = summarise(differences)
    if found.std is None:
        return Paired(found.mean, None, None, found.count, tuple(differences))
    half = t_quantile((1 + CONFIDENCE) / 2, found.count - 1) * found.std / math.sqrt(found.count)
    return Paired(found.mean, found.mean - half, found.mean + half, found.count, tuple(differences))


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def steps_to_reach(steps: Sequence[float], values: Sequence[float | None], goal: float) -> float | None:
    """The step at which a curve first reaches a value, straight between two looks; None if it never does.

    Args:
        steps: Of the looks, rising.
        values: At the looks.
        goal: The value.
    """
    before: tuple[float, float] | None = None
    for step, value in zip(steps, values, strict=True):
        if value is None:
            continue
        if value >= goal:
            if before is None or value == before[1]:
                return float(step)
            share = (goal - before[1]) / (value - before[1])
            return before[0] + share * (step - before[0])
        before = (float(step), value)
    return None
