"""Accuracy of a selector on graded answers.

The answers of a problem are compared once; all selectors and budgets share the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.search import select
from vgs_ray.search.select import AnswerClass, Equivalent, Selector


class AnswerPool(NamedTuple):
    """Answers that vote together, and the positions of the members of each answer class."""

    leaves: Sequence[GradedLeaf]
    classes: list[list[int]]

    @classmethod
    def of_search(cls, search: GradedSearch, equivalent: Equivalent | None) -> AnswerPool:
        return cls(search.leaves, select.classes([leaf.answer for leaf in search.leaves], equivalent))

    def of_groups(self, groups: range) -> AnswerPool:
        """The answers of some groups, with the classes restricted to them."""
        positions = [position for position, leaf in enumerate(self.leaves) if leaf.group in groups]
        moved = {old: new for new, old in enumerate(positions)}
        classes = [[moved[position] for position in members if position in moved] for members in self.classes]
        return AnswerPool(
            [self.leaves[position] for position in positions], [members for members in classes if members]
        )

    def weigh(self, selector: Selector) -> list[AnswerClass]:
        """The classes with their weights. For `best` each answer is its own class."""
        classes = (
            [[position] for members in self.classes for position in members] if selector == "best" else self.classes
        )
        return select.weigh(selector, classes, [leaf.value for leaf in self.leaves])


Accuracy = Callable[[AnswerPool], float]


def selector_accuracy(selector: Selector) -> Accuracy:
    """P(the selected answer is correct), where one of the tied classes is drawn at random; 0 without answers."""

    def accuracy(pool: AnswerPool) -> float:
        winners = [winner.members[0] for winner in select.tied(pool.weigh(selector))]
        return fmean(pool.leaves[position].outcome == "correct" for position in winners) if winners else 0.0

    return accuracy


def likely_accuracy(weight: float) -> Accuracy:
    """P(the answer with the highest value * exp(weight * mean log-probability) is correct), as for the selector `best`.

    See `select.likely_value`. An answer without a log-probability ranks last.
    """
    best = selector_accuracy("best")

    def accuracy(pool: AnswerPool) -> float:
        likely = [leaf._replace(value=select.likely_value(leaf.value, leaf.logprob, weight)) for leaf in pool.leaves]
        return best(pool._replace(leaves=likely))

    return accuracy


def walk_accuracy(pool: AnswerPool) -> float:
    """1.0 if the answer at the end of the walk along the highest Q is correct, else 0.0."""
    return float(any(leaf.walked and leaf.outcome == "correct" for leaf in pool.leaves))


def any_correct(pool: AnswerPool) -> float:
    """1.0 if an answer is correct, else 0.0."""
    return float(any(leaf.outcome == "correct" for leaf in pool.leaves))
