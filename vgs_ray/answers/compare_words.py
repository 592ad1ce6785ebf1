"""Comparison of answers in words. Pure."""

from __future__ import annotations

import re

from vgs_ray.answers.three_valued import Truth

_SYNONYMS = (
    {"yes", "true"},
    {"no", "false"},
    {"none", "no solution"},
    {"no solutions", "no solution"},
    {"infinite", "infinitely many"},
    {"dne", "does not exist"},
)
_ARTICLES = {"a", "an", "the"}


def words_equal(gold: str, answer: str) -> Truth:
    """Compare words without case and punctuation: `no solution` equals `No solution.`.

    Returns:
        None for an abbreviation (`Mon`), a synonym (`true` for `yes`), another article, and two texts of three words or more.
    """
    first, second = (re.sub(r"[^\w]+", " ", text.casefold()).strip() for text in (gold, answer))
    if first == second:
        return _equal_in_any_case(gold, answer)
    if any({first, second} == pair for pair in _SYNONYMS) or _abbreviates(gold, answer) or _abbreviates(answer, gold):
        return None
    if set(first.split()) ^ set(second.split()) <= _ARTICLES:
        return None
    return None if len(first.split()) > 2 and len(second.split()) > 2 else False


def _equal_in_any_case(gold: str, answer: str) -> Truth:
    """`Yes` equals `YES` and `Bob` equals `bob`, but `abc` and `ABC` are products of different variables."""
    if gold == answer or len(gold) > 3 or gold.casefold() in ("yes", "no", "odd", "dne"):
        return True
    return len(gold) == 3 and gold[1:].islower() and answer[1:].islower()


def _abbreviates(short: str, long: str) -> bool:
    """Whether `short` is `E` for `east` or `Mon` for `Monday`."""
    return (
        len(short) <= 3
        and bool(re.fullmatch(r"[A-Z]?[a-z]{3,}", long))
        and long.casefold().startswith(short.casefold())
    )
