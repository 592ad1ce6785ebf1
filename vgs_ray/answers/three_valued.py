"""Three-valued results, True, False and None (unknown), and the comparison of lists with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_MEMBERS = 60  # of a list in any order, whose comparison takes quadratic time; longer lists are unknown

Truth = bool | None


def same_members(gold: Sequence[Any], answer: Sequence[Any], same: Callable[[Any, Any], Truth]) -> Truth:
    """Whether two lists have the same members in any order."""
    if len(gold) != len(answer):
        return False
    if len(gold) > MAX_MEMBERS:
        return None
    left, unmatched = list(answer), []
    results: dict[tuple[int, int], Truth] = {}
    for number, member in enumerate(gold):
        for place, other in enumerate(left):
            result = same(member, other)
            if result:
                del left[place]
                break
            results[number, id(other)] = result
        else:
            unmatched.append(number)
    possible = all(any(results.get((number, id(other)), False) is None for other in left) for number in unmatched)
    return True if not unmatched else (None if possible else False)


def same_in_order(gold: Sequence[Any], answer: Sequence[Any], same: Callable[[Any, Any], Truth]) -> Truth:
    """Whether two lists have the same members in the same order."""
    if len(gold) != len(answer):
        return False
    return all_true(same(*pair) for pair in zip(gold, answer, strict=True))


def all_true(truths: Any) -> Truth:
    """False if any is False, else None if any is None, else True. An iterator is not read further after a False."""
    result: Truth = True
    for truth in truths:
        if truth is False:
            return False
        result = None if truth is None else result
    return result
