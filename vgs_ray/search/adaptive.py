"""Adaptive budgets: stop sampling answers for a problem whose vote is decided, and give the saved budget to other problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nlargest


def lead_probability(weights: Sequence[float]) -> float:
    """P(the leading class beats the second class), given the weights so far.

    With weights a >= b of the two classes, the share p of the leading class has the posterior Beta(1 + a, 1 + b). The result is
    P(p > 1/2): the criterion of adaptive consistency (arXiv 2305.11860), with values in place of counts. 0.5 without answers.
    """
    from scipy.special import betaincc  # importing a search must not import scipy

    first, second = nlargest(2, (*weights, 0.0, 0.0))
    return float(betaincc(1 + first, 1 + second, 0.5))


def is_decided(weights: Sequence[float], remaining: float, confidence: float) -> bool:
    """Whether the leading class cannot be overtaken, or with probability `confidence` will not be.

    Args:
        weights: of all classes so far.
        remaining: largest weight that the remaining answers can add to one class.
        confidence: in (0.5, 1]; at 1 a vote is decided only if the leading class cannot be overtaken.

    Raises:
        ValueError: `confidence` is outside its range.
    """
    if not 0.5 < confidence <= 1:
        raise ValueError(f"confidence is {confidence}; it must be over 0.5 and at most 1: choose one such as 0.95")
    first, second = nlargest(2, (*weights, 0.0, 0.0))
    return first - second > remaining or lead_probability(weights) >= confidence


def answers_needed(weights: Sequence[float], remaining: int, confidence: float) -> int:
    """Least number of further answers that can decide the vote, if each has weight 1 and votes for the leading class.

    Args:
        weights: of all classes so far.
        remaining: number of answers that are left, and the result at most.
        confidence: as in `is_decided`.
    """
    first, second = nlargest(2, (*weights, 0.0, 0.0))
    return next(
        (more for more in range(remaining) if is_decided([first + more, second], remaining - more, confidence)),
        remaining,
    )


def allocate_groups(
    problems: int,
    budget: int,
    max_groups: int,
    answers_per_group: int,
    weights: Callable[[int, int], Sequence[float]],
    confidence: float,
) -> list[int]:
    """Number of groups for each problem when all problems share `problems * budget` groups.

    Each problem gets one group. Then each pass gives one more to every problem whose vote is undecided, and if too few are
    left, to those with the smallest lead.

    Args:
        problems: number of problems.
        budget: mean number of groups of a problem, at most.
        max_groups: groups of one problem, at most.
        answers_per_group: at most; each answer weighs at most 1.
        weights: (problem, groups) -> weights of its classes after that many groups.
        confidence: as in `is_decided`.

    Returns:
        (problems,) number of groups, each at least 1.
    """
    groups, left = [1] * problems, problems * (budget - 1)
    undecided = list(range(problems))
    while left and undecided:
        current = {problem: weights(problem, groups[problem]) for problem in undecided}
        remaining = {problem: answers_per_group * (max_groups - groups[problem]) for problem in undecided}
        undecided = [
            problem
            for problem in undecided
            if remaining[problem] and not is_decided(current[problem], remaining[problem], confidence)
        ]
        chosen = sorted(undecided, key=lambda problem: (lead_probability(current[problem]), problem))[:left]
        for problem in chosen:
            groups[problem] += 1
        left -= len(chosen)
    return groups
