"""Statistics of an evaluation: 95% intervals over problems, and pass@k.

In: one number in [0, 1] for each problem, its expected correctness. Samples are not passed one by one, because samples of one
problem are not independent. numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
SMALL = 50
"""With fewer problems than this, bootstrap intervals are too short, and Student's t is used."""

Numbers = Sequence[float] | NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and the bounds of its 95% interval."""

    mean: float
    low: float
    high: float


def interval(per_problem: Numbers, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean accuracy with an interval: a percentile bootstrap over problems, or Student's t for fewer than `SMALL` problems.

    Problems are resampled as clusters, with all of their samples, so the interval covers new problems and new samples. If all
    problems are correct, or all are wrong, the resamples are all equal; the interval is then the exact binomial one
    (Clopper-Pearson).

    Args:
        per_problem: (problems,) expected correctness in [0, 1].
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ValueError: `per_problem` is empty or has a value outside [0, 1], or `resamples` is below 1.
    """
    values = _vector(per_problem, resamples)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"per_problem has values from {values.min()} to {values.max()}: pass correctness in [0, 1]")
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        bound = ((1 - LEVEL) / 2) ** (1 / len(values))
        return Interval(1.0, bound, 1.0) if values[0] == 1.0 else Interval(0.0, 0.0, 1 - bound)
    return _estimate([values], resamples, seed, (0.0, 1.0))


def difference(a: Numbers, b: Numbers, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of `a - b`, paired by problem, with an interval as in `interval`.

    Args:
        a, b: (problems,) expected correctness of two methods on the same problems, in the same order.
        resamples, seed: as in `interval`.

    Raises:
        ValueError: `a` and `b` differ in length or are empty, or `resamples` is below 1.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} problems and b {len(b)}: pass the same problems in the same order")
    return _estimate([_vector(a, resamples) - _vector(b, resamples)], resamples, seed, (-1.0, 1.0))


def average(strata: Sequence[Numbers], resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over several sets of problems, such as benchmarks, each set with the same weight.

    Problems are resampled within their set. If a set has fewer than `SMALL` problems, the interval is Welch's t.

    Args:
        strata: for each set, its problems' numbers in [-1, 1]: correctness, or differences between two methods.
        resamples, seed: as in `interval`.

    Raises:
        ValueError: as in `interval`.
    """
    vectors = [_vector(stratum, resamples) for stratum in strata]
    low = min(float(vector.min()) for vector in vectors)
    return _estimate(vectors, resamples, seed, (-1.0 if low < 0 else 0.0, 1.0))


def paired_difference(pairs: Sequence[tuple[Numbers, Numbers]], resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of `a - b` on one benchmark, or on average over several.

    Args:
        pairs: (a, b) as in `difference`, one for each benchmark.
        resamples, seed: as in `interval`.

    Raises:
        ValueError: as in `difference`.
    """
    if len(pairs) == 1:
        return difference(*pairs[0], resamples, seed)
    return average([np.subtract(a, b) for a, b in pairs], resamples, seed)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """P(at least one of k samples is correct), unbiased (arXiv 2107.03374, equation 1).

    Args:
        samples: number of samples of the problem.
        correct: number of correct samples.
        k: number of samples drawn without replacement.

    Raises:
        ValueError: unless 0 <= correct <= samples and 1 <= k <= samples.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(
            f"samples is {samples}, correct is {correct}, k is {k}: need 0 <= correct <= samples and 1 <= k <= samples"
        )
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def _vector(values: Numbers, resamples: int) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(
            f"got an array of shape {vector.shape}: pass one finite number for each problem, and at least one problem"
        )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be at least 1: pass 2000")
    return vector


def _estimate(strata: list[NDArray[np.float64]], resamples: int, seed: int, limits: tuple[float, float]) -> Interval:
    """Mean of the means of the strata, with bounds clipped to `limits`."""
    mean = float(np.mean([stratum.mean() for stratum in strata]))
    smallest = min(map(len, strata))
    if smallest == 1:
        return Interval(mean, *limits)  # the variance of one problem is unknown
    low, high = _student(strata, mean) if smallest < SMALL else _bootstrap(strata, resamples, seed)
    return Interval(mean, max(low, limits[0]), min(high, limits[1]))


def _student(strata: list[NDArray[np.float64]], mean: float) -> tuple[float, float]:
    """Student's t interval; over several strata with the degrees of freedom of Welch and Satterthwaite."""
    from scipy.stats import t

    errors = [stratum.var(ddof=1) / len(stratum) for stratum in strata]
    squares = sum(error**2 / (len(stratum) - 1) for error, stratum in zip(errors, strata, strict=True))
    if not squares:
        return mean, mean
    half = float(t.ppf((1 + LEVEL) / 2, sum(errors) ** 2 / squares)) * math.sqrt(sum(errors)) / len(strata)
    return mean - half, mean + half


def _bootstrap(strata: list[NDArray[np.float64]], resamples: int, seed: int) -> tuple[float, float]:
    # The counts of a resample are multinomial, so one matrix product gives the means of all resamples.
    generator, means = np.random.default_rng(seed), np.zeros(resamples)
    for values in strata:
        count = len(values)
        counts = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
        means += counts @ values / count / len(strata)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
