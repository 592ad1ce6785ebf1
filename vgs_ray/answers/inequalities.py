r"""Inequalities in one variable as sets of real numbers: `x>3\text{ or }x<-1` is a union of two intervals."""

from __future__ import annotations

import re
from typing import Any

from vgs_ray.answers import compare_sympy
from vgs_ray.answers.brackets import split_outside

MAX_PARTS = 16
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|notin)(?![A-Za-z])")
_BUILDER = re.compile(r"\\\{([a-z])(?:\\in ?(?:\\mathbb\{R\}|R))?(?:\\mid ?|\||:)(.*)\\\}")
_JOIN = re.compile(
    r",?\s*(?:\\text\{(?:and|or|but)\}|\\lor|\\land|\bor\b|\band\b|\\cup(?=\s*[a-z]\s*[<>\\]))\s*|[,;]\s*"
)


def solution_set(text: str) -> tuple[Any, Any] | None:
    """The variable and the set of its values.

    `or` between inequalities is a union and `and` an intersection. A comma is an intersection, or a union if the intersection
    is empty.

    Returns:
        None if the text has no inequality, several variables, or other content.
    """
    if not RELATION.search(text):
        return None
    builder = _BUILDER.fullmatch(text)
    parts, joins = split_outside(builder[2] if builder else text, _JOIN)
    if len(parts) > MAX_PARTS:
        return None
    solutions = [_relation_set(compare_sympy.parse(part)) for part in parts]
    variables = {solution[0] for solution in solutions if solution}
    if None in solutions or len(variables) != 1:
        return None
    sets = [solution[1] for solution in solutions if solution]
    return variables.pop(), _joined_sets(sets, "".join(joins))


def is_builder(text: str) -> bool:
    r"""Whether a text is a set in set-builder notation: `\{x\mid x>2\}`."""
    return bool(_BUILDER.fullmatch(text))


def _joined_sets(sets: list[Any], joins: str) -> Any:
    import sympy

    intersection = sympy.Intersection(*sets)
    if "and" in joins or "but" in joins:
        return intersection
    if "or" in joins or "cup" in joins or intersection.is_empty:
        return sympy.Union(*sets)
    return intersection


def _relation_set(value: Any) -> tuple[Any, Any] | None:
    """The variable of one relation, such as `1<x<3` or `x \\in (1,3)`, and the set of its values."""
    import sympy

    if type(value).__name__ == "And":
        links = [_relation_set(link) for link in value._unsorted_args]
        if None in links or len({link[0] for link in links if link}) != 1:
            return None
        return links[0][0], sympy.Intersection(*(link[1] for link in links if link))  # type: ignore[index]
    if isinstance(value, sympy.Not):
        inner = _relation_set(value.args[0])
        return (inner[0], sympy.Complement(sympy.S.Reals, inner[1])) if inner else None
    if not isinstance(value, sympy.Rel):
        return None
    if len(value.free_symbols) != 1:
        return None
    (variable,) = value.free_symbols
    if isinstance(value.rhs, sympy.Set):
        return (variable, value.rhs.doit()) if value.lhs == variable and isinstance(value, sympy.Eq) else None
    if isinstance(value, sympy.Eq):
        return (variable, sympy.FiniteSet(value.rhs)) if value.lhs == variable else None
    return variable, value.doit().as_set()
