"""Early stop: end a search when its answer is decided, without waiting for the rest.

A vote is decided when the other answers will not change it. The selector `best` is decided when an answer has a high value.

Answers vote group by group, in the order of the groups' numbers: the answers of groups 0 to k - 1 vote, for the smallest k that
decides the vote, whichever groups ended first. So the result is a function of the seed, like that of a whole search, and answers
that end first because they are short have no advantage.

Groups start in waves. A wave has as many groups as the vote needs at least, and at least a share of those that have ended, so the
number of waves grows with the logarithm of the number of groups. When the vote is decided, the rest of the wave is cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from vgs_ray.search.adaptive import answers_needed, is_decided
from vgs_ray.search.gather import gather_or_cancel
from vgs_ray.search.select import Equivalent, Selector, classes, weigh
from vgs_ray.search.tree import Node, Tree

WAVE_SHARE = 0.25
"""Least size of a wave, as a share of the groups that have ended. More groups at a time take less time and waste more tokens."""

Group = Callable[[], Coroutine[Any, Any, None]]


class EarlyStop:
    """The vote that ends one search, or the value.

    Args:
        confidence: in (0.5, 1]. A vote is decided at this confidence, see `adaptive.is_decided`; `best` is decided when the value
            of an answer reaches it.
        answer: (tree, leaf) -> the answer of a finished leaf; None if it has none. It is called once for each leaf.
        equivalent: whether two answers are equal. It is called for all pairs again after each group, so pass a cached function.
        selector: of the answer.

    Attributes:
        groups: number of groups whose answers decided; None if nothing was decided before all groups had ended.
    """

    def __init__(
        self,
        confidence: float,
        answer: Callable[[Tree, Node], str | None],
        equivalent: Equivalent,
        selector: Selector = "weighted_majority",
    ) -> None:
        self.confidence, self.selector = confidence, selector
        self.groups: int | None = None
        self._answer, self._equivalent = answer, equivalent
        self._answers: dict[int, str | None] = {}

    def is_decided(self, weights: Sequence[float], remaining: int) -> bool:
        """Whether the search ends.

        Args:
            weights: of the answer classes so far.
            remaining: number of answers that are left.
        """
        if self.selector == "best":
            return max(weights, default=0.0) >= self.confidence
        return is_decided(weights, remaining, self.confidence)

    def answers_needed(self, weights: Sequence[float], remaining: int) -> int:
        """Least number of further answers that can end the search. The arguments are those of `is_decided`."""
        return 1 if self.selector == "best" else answers_needed(weights, remaining, self.confidence)

    def weights(self, tree: Tree, groups: int) -> list[float]:
        """Weights of the answer classes among the first groups of a tree."""
        leaves = [leaf for leaf in tree.leaves() if leaf.group < groups]
        grouped = classes([self._answer_of(tree, leaf) for leaf in leaves], self._equivalent)
        return [each.weight for each in weigh(self.selector, grouped, [leaf.value for leaf in leaves])]

    def _answer_of(self, tree: Tree, leaf: Node) -> str | None:
        if leaf.id not in self._answers:
            self._answers[leaf.id] = self._answer(tree, leaf) if leaf.state == "finished" else None
        return self._answers[leaf.id]


async def run_groups(groups: Sequence[Group], tree: Tree, answers: int, stop: EarlyStop | None) -> int:
    """Run the groups of a search: all at once without `stop`, otherwise in waves until its vote is decided.

    Args:
        groups: coroutine functions that add the groups to the tree.
        tree: of the search.
        answers: of one group, at most.
        stop: decides when the search ends.

    Returns:
        The number of groups that vote. The calls of the others have ended when this returns.
    """
    if stop is None:
        await gather_or_cancel(group() for group in groups)
        return len(groups)
    ended, weights = 0, list[float]()
    while ended < len(groups):
        needed = stop.answers_needed(weights, answers * (len(groups) - ended))
        size = math.ceil(max(needed / answers, WAVE_SHARE * ended))
        wave = [asyncio.ensure_future(group()) for group in groups[ended:][:size]]
        try:
            for call in wave:
                await call
                ended += 1
                # In a thread, because decoding long answers and sympy would block all other searches.
                weights = await asyncio.to_thread(stop.weights, tree, ended)
                if ended < len(groups) and stop.is_decided(weights, answers * (len(groups) - ended)):
                    stop.groups = ended
                    return ended
        finally:
            for call in wave:
                call.cancel()
            await asyncio.gather(*wave, return_exceptions=True)
    return ended
