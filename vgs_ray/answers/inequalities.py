r"""Inequalities of one letter as sets of real numbers: `x>3\text{ or }x<-1` is a union of two intervals."""

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
    """The letter and the set of its values; None where the text has no inequality, several letters, or something else in it.

    Between inequalities `or` means any of them and `and` all of them; after a comma it is all of them where that is possible.
    """
    if not RELATION.search(text):
        return None
    builder = _BUILDER.fullmatch(text)
    parts, joins = split_outside(builder[2] if builder else text, _JOIN)
    if len(parts) > MAX_PARTS:
        return None
    atoms = [_atom(compare_sympy.parse(part)) for part in parts]
    letters = {atom[0] for atom in atoms if atom}
    if None in atoms or len(letters) != 1:
        return None
    sets = [atom[1] for atom in atoms if atom]
    return letters.pop(), _joined(sets, "".join(joins))


def is_builder(text: str) -> bool:
    r"""Whether a text is a set of numbers by a condition, such as `\\{x\\mid x>2\\}`."""
    return bool(_BUILDER.fullmatch(text))


def _joined(sets: list[Any], joins: str) -> Any:
    import sympy

    everything = sympy.Intersection(*sets)
    if "and" in joins or "but" in joins:
        return everything
    if "or" in joins or "cup" in joins or everything.is_empty:
        return sympy.Union(*sets)
    return everything


def _atom(value: Any) -> tuple[Any, Any] | None:
    """A relation of one letter with numbers or sets, as the letter and the set of its values."""
    import sympy

    if type(value).__name__ == "And":
        links = [_atom(link) for link in value._unsorted_args]
        if None in links or len({link[0] for link in links if link}) != 1:
            return None
        return links[0][0], sympy.Intersection(*(link[1] for link in links if link))  # type: ignore[index]
    if isinstance(value, sympy.Not):
        inner = _atom(value.args[0])
        return (inner[0], sympy.Complement(sympy.S.Reals, inner[1])) if inner else None
    if not isinstance(value, sympy.Rel):
        return None
    letters = value.free_symbols
    if len(letters) != 1:
        return None
    (letter,) = letters
    if isinstance(value.rhs, sympy.Set):
        return (letter, value.rhs.doit()) if value.lhs == letter and isinstance(value, sympy.Eq) else None
    if isinstance(value, sympy.Eq):
        return (letter, sympy.FiniteSet(value.rhs)) if value.lhs == letter else None
    return letter, value.doit().as_set()
