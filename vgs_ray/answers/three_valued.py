"""Verdicts with doubt: True, False, or None where nobody knows, and lists compared with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_MEMBERS = 60  # of a list; the comparison of members takes quadratic time

Truth = bool | None


def same_members(gold: Sequence[Any], answer: Sequence[Any], same: Callable[[Any, Any], Truth]) -> Truth:
    """Whether two lists have the same members in any order."""
    if len(gold) != len(answer):
        return False
    if len(gold) > MAX_MEMBERS:
        return None
    left, unmatched = list(answer), []
    doubts: dict[tuple[int, int], Truth] = {}
    for number, member in enumerate(gold):
        for place, other in enumerate(left):
            found = same(member, other)
            if found:
                del left[place]
                break
            doubts[number, id(other)] = found
        else:
            unmatched.append(number)
    doubtful = all(any(doubts.get((number, id(other)), False) is None for other in left) for number in unmatched)
    return True if not unmatched else (None if doubtful else False)


def same_in_order(gold: Sequence[Any], answer: Sequence[Any], same: Callable[[Any, Any], Truth]) -> Truth:
    """Whether two lists have the same members in the same order."""
    if len(gold) != len(answer):
        return False
    return all_true(same(*pair) for pair in zip(gold, answer, strict=True))


def all_true(truths: Any) -> Truth:
    """False if any is False, else None if any is None, else True; later ones are not asked after a False."""
    found: Truth = True
    for truth in truths:
        if truth is False:
            return False
        found = None if truth is None else found
    return found
