"""The probability that the chosen answer of a search is correct, from its share of the vote, its value and the budget.

A value is about one answer alone: each of several different answers can have the value 0.7. A share of the vote depends on the
number of answers. The probability combines both, and evaluation fits it (`vgs_ray.evaluate.answer_probability`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vgs_ray.config import Beam, Sampling

EDGE = 0.01
"""Shares and values are kept this far from 0 and 1, where their logits are infinite."""


class AnswerProbability(NamedTuple):
    """A logistic regression on the logits of share and value, the logarithm of the budget to base 2, and share times budget: the
    share of many answers says more than that of two."""

    share: float
    value: float
    budget: float
    share_budget: float
    intercept: float

    def of(self, share: float, value: float, budget: int) -> float:
        """P(the answer is correct).

        Args:
            share: of the weight of its class in the weight of all answers, in [0, 1].
            value: the highest value of an answer of its class, in [0, 1].
            budget: of the search.
        """
        *weights, intercept = self
        inputs = features(share, value, budget)
        logit = intercept + sum(weight * each for weight, each in zip(weights, inputs, strict=True))
        return 1 / (1 + math.exp(-logit))


@dataclass(frozen=True)
class FittedProbabilities:
    """What one evaluation fitted, and the searches for which it holds.

    Attributes:
        beam: shape of the guided search; another number of groups is covered, because the budget is an input.
        sampling: of its samples.
        budgets: the smallest and the largest.
        by_explorer: `sample` and `beam`, as far as there were enough problems.
    """

    beam: Beam
    sampling: Sampling
    budgets: tuple[int, int]
    by_explorer: Mapping[str, AnswerProbability]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FittedProbabilities:
        """From `asdict`, as JSON keeps it."""
        sampling = stored["sampling"] | {"stop_token_ids": tuple(stored["sampling"]["stop_token_ids"])}
        fitted = {name: AnswerProbability(*weights) for name, weights in stored["by_explorer"].items()}
        low, high = stored["budgets"]
        return cls(Beam(**stored["beam"]), Sampling(**sampling), (low, high), fitted)

    def of_search(self, explorer: str, beam: Beam, sampling: Sampling, budget: int) -> AnswerProbability | None:
        """The regression for a search; None for a search unlike those of the evaluation.

        Args:
            explorer: `sample` or `beam`.
            beam: its shape, if it is a guided search.
            sampling: of its samples.
            budget: number of generations in parallel.
        """
        same_shape = explorer == "sample" or replace(beam, groups=self.beam.groups) == self.beam
        in_range = self.budgets[0] <= budget <= self.budgets[1]
        return self.by_explorer.get(explorer) if same_shape and in_range and sampling == self.sampling else None


def features(share: float, value: float, budget: int) -> tuple[float, float, float, float]:
    """The inputs of the regression."""
    return _logit(share), _logit(value), math.log2(budget), _logit(share) * math.log2(budget)


def _logit(chance: float) -> float:
    kept = min(max(chance, EDGE), 1 - EDGE)
    return math.log(kept / (1 - kept))
