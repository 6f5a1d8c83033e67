"""Means over seeds, paired differences with intervals, and the steps needed to reach an accuracy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of `count` values; the deviation of fewer than two is None."""

    mean: float | None
    std: float | None
    count: int


@dataclass(frozen=True)
class Paired:
    """Mean difference over the seeds that both methods have, and its t-interval.

    Attributes:
        mean: Mean difference; None without a common seed.
        low: Lower end of the interval; None with fewer than two common seeds.
        high: Upper end of the interval; None with fewer than two common seeds.
        count: Number of common seeds.
        values: The difference of each seed.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: int
    values: tuple[float, ...]


def summarise(values: Sequence[float]) -> Summary:
    """Compute the mean and the standard deviation of one method's values."""
    count = len(values)
    if count == 0:
        return Summary(None, None, 0)
    mean = math.fsum(values) / count
    if count == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)), count)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Paired:
    """Compute the difference of a method to the baseline, seed by seed, with the 95 % t-interval of its mean.

    Args:
        values: Seed -> value of the method.
        baseline: Seed -> value of the baseline.
    """
    differences = [values[seed] - baseline[seed] for seed in sorted(values) if seed in baseline]
    summary = summarise(differences)
    if summary.mean is None or summary.std is None:
        return Paired(summary.mean, None, None, summary.count, tuple(differences))
    half = t_quantile((1 + CONFIDENCE) / 2, summary.count - 1) * summary.std / math.sqrt(summary.count)
    return Paired(summary.mean, summary.mean - half, summary.mean + half, summary.count, tuple(differences))


def t_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def steps_to_reach(steps: Sequence[float], values: Sequence[float | None], goal: float) -> float | None:
    """Find the step at which a curve first reaches a value, with linear interpolation between two points.

    Args:
        steps: Steps of the points, rising.
        values: Values of the points; None is skipped.
        goal: The value to reach.

    Returns:
        The step, or None if the curve never reaches the value.
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
