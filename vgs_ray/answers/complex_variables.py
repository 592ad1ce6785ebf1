"""Complex variables: `|z-i|` and `|z+i|` are equal for real z only.

Analytic expressions that are equal on the real line are equal everywhere. Only absolute values, conjugates, real and imaginary
parts and arguments need this check.
"""

from __future__ import annotations

import random
from typing import Any

_COMPLEX = {"z", "w", "\\zeta", "\\omega", "zeta", "omega"}
_POINTS = 4


def possibly_complex(gold: Any, answer: Any) -> list[Any]:
    """Variables that may be complex: z, w, zeta and omega, or those added to the imaginary unit, as in |x - 2i|."""
    import sympy

    sides = (gold, answer)
    parts = (sympy.Abs, sympy.conjugate, sympy.re, sympy.im, sympy.arg)
    if not any(side.has(*parts) for side in sides):
        return []
    free = sorted(gold.free_symbols | answer.free_symbols, key=str)
    customary = [variable for variable in free if str(variable).split("_")[0] in _COMPLEX]
    if customary or not any(side.has(sympy.I) for side in sides):
        return customary
    products = [part for side in sides for part in side.atoms(sympy.Mul) if part.has(sympy.I)]
    return [] if any(part.free_symbols for part in products) else free


def agree_at_complex_points(gold: Any, answer: Any, *, ratio: bool = False) -> bool | None:
    """Whether two expressions that are equal for real variables are equal for complex ones, too.

    Args:
        ratio: whether a constant ratio is enough.

    Returns:
        None if they differ, but neither contains the imaginary unit.
    """
    import sympy

    draw = random.Random(3)
    free = sorted(gold.free_symbols | answer.free_symbols, key=str)
    general = {variable: sympy.Dummy(str(variable)) for variable in possibly_complex(gold, answer)}  # not declared real
    values = []
    for _ in range(_POINTS):
        point = {general.get(each, each): draw.uniform(0.2, 3) + sympy.I * draw.uniform(0.2, 3) * int(each in general)
                 for each in free}  # fmt: skip
        values.append([complex(side.xreplace(general).evalf(30, subs=point)) for side in (gold, answer)])
    if ratio and all(abs(second) > 1e-12 for _, second in values):
        constant = values[0][0] / values[0][1]
        values = [[first, constant * second] for first, second in values]
    if all(abs(first - second) <= 1e-9 * (1 + abs(first)) for first, second in values):
        return True
    return False if any(side.has(sympy.I) for side in (gold, answer)) else None
