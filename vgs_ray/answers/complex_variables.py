"""Letters that may be complex: `|z-i|` and `|z+i|` agree on the real line only.

Analytic expressions that agree on the real line agree everywhere, so only absolute values, conjugates and parts matter.
"""

from __future__ import annotations

import random
from typing import Any

_COMPLEX = {"z", "w", "\\zeta", "\\omega", "zeta", "omega"}
_POINTS = 4


def complex_letters(gold: Any, answer: Any) -> list[Any]:
    """Letters that are complex by custom, or stand beside the imaginary unit without being its factor, as in |x - 2i|."""
    import sympy

    sides = (gold, answer)
    parts = (sympy.Abs, sympy.conjugate, sympy.re, sympy.im, sympy.arg)
    if not any(side.has(*parts) for side in sides):
        return []
    free = sorted(gold.free_symbols | answer.free_symbols, key=str)
    customary = [letter for letter in free if str(letter).split("_")[0] in _COMPLEX]
    if customary or not any(side.has(sympy.I) for side in sides):
        return customary
    products = [part for side in sides for part in side.atoms(sympy.Mul) if part.has(sympy.I)]
    return [] if any(part.free_symbols for part in products) else free


def agree_at_complex_points(gold: Any, answer: Any, *, ratio: bool = False) -> bool | None:
    """Whether two expressions that agree for real letters agree for complex ones too; `ratio` asks for a constant ratio.

    Returns:
        None where they do not and nothing says that the letters are complex.
    """
    import sympy

    letters, draw = complex_letters(gold, answer), random.Random(3)
    free = sorted(gold.free_symbols | answer.free_symbols, key=str)
    general = {letter: sympy.Dummy(str(letter)) for letter in letters}
    values = []
    for _ in range(_POINTS):
        point = {general.get(letter, letter): draw.uniform(0.2, 3) + sympy.I * draw.uniform(0.2, 3) * int(letter in general)
                 for letter in free}  # fmt: skip
        values.append([complex(side.xreplace(general).evalf(30, subs=point)) for side in (gold, answer)])
    if ratio and all(abs(second) > 1e-12 for _, second in values):
        constant = values[0][0] / values[0][1]
        values = [[first, constant * second] for first, second in values]
    if all(abs(first - second) <= 1e-9 * (1 + abs(first)) for first, second in values):
        return True
    return False if any(side.has(sympy.I) for side in (gold, answer)) else None
