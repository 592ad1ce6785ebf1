"""Equality of the answers of one search, within a limit of time."""

from __future__ import annotations

import time

from vgs_ray.answers.judge import Judge
from vgs_ray.search.select import Equivalent

VOTE_LIMIT_S = 10.0
"""Time for comparing the answers of one search, in all. Pairs that are not compared by then count as different."""


def equal_within_limit(judge: Judge) -> Equivalent:
    """Equality of answers. Once comparisons have taken `VOTE_LIMIT_S`, further pairs count as different."""
    left_s = VOTE_LIMIT_S

    def same(first: str, other: str) -> bool:
        nonlocal left_s
        if left_s <= 0:
            return False
        began = time.monotonic()
        equal = judge.equal(first, other)
        left_s -= time.monotonic() - began
        return equal

    return same
