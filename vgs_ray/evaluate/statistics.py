"""Statistics of an evaluation: intervals that are resampled by problem, and pass@k.

In: one number in [0, 1] for each problem (its expected correctness), never one for each sample, because samples of one
problem are not independent. Out: means with 95% intervals. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and the ends of its 95% interval."""

    mean: float
    low: float
    high: float


def interval(per_problem: Sequence[float] | NDArray[np.float64], resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean accuracy with a percentile bootstrap over problems.

    Where all problems are right, or all wrong, every resample is the same and a bootstrap would claim certainty; the
    open end is then the exact binomial (Clopper-Pearson) one.

    Args:
        per_problem: (problems,) expected correctness in [0, 1].
        resamples: draws of as many problems, with replacement.
        seed: of the draws.

    Raises:
        ValueError: no problem, a number outside [0, 1], or no resample.
    """
    values = _vector(per_problem, resamples)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"per_problem reaches from {values.min()} to {values.max()}: pass correctness in [0, 1]")
    if values.min() == values.max() and values[0] in (0.0, 1.0):
        end = ((1 - LEVEL) / 2) ** (1 / len(values))
        return Interval(1.0, end, 1.0) if values[0] == 1.0 else Interval(0.0, 0.0, 1 - end)
    return _bootstrap(values, resamples, seed)


def difference(
    a: Sequence[float] | NDArray[np.float64],
    b: Sequence[float] | NDArray[np.float64],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` with a percentile bootstrap over problems; the same problems are drawn for both.

    Args:
        a, b: (problems,) expected correctness of two methods on the same problems, in the same order.
        resamples, seed: as in `interval`.

    Raises:
        ValueError: lengths that differ, no problem, or no resample.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} problems and b {len(b)}: pass the same problems in the same order")
    return _bootstrap(_vector(a, resamples) - _vector(b, resamples), resamples, seed)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """P(at least one of k samples is correct), unbiased (arXiv 2107.03374, equation 1).

    Args:
        samples: samples of the problem.
        correct: how many of them are correct.
        k: samples drawn without replacement.

    Raises:
        ValueError: not 0 <= correct <= samples, or not 1 <= k <= samples.
    """
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(
            f"samples {samples}, correct {correct}, k {k}: need 0 <= correct <= samples and 1 <= k <= samples"
        )
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def _vector(values: Sequence[float] | NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise ValueError(f"need one finite number for each problem, at least one; got an array of shape {vector.shape}")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; an interval needs at least 1, better 2000")
    return vector


def _bootstrap(values: NDArray[np.float64], resamples: int, seed: int) -> Interval:
    # How often each problem is drawn is multinomial: one matrix product instead of a loop over resamples.
    count = len(values)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    means = drawn @ values / count
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))
