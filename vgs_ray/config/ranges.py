"""Types of the fields with the values that they may have; `vgs_ray.config.checks` holds a recipe to them, `--help` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
Port = Annotated[int, Ge(1), Le(65535)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
"""What NumPy and torch both take."""
Penalty = Annotated[float, Ge(0.01), Le(100)]
"""vLLM takes any that is over 0; far beyond these, logits leave the range of a float."""
NonEmptyStr = Annotated[str, MinLen(1)]

_WORDS = {Ge: "at least", Gt: "over", Le: "at most", Lt: "below"}


def range_text(constraints: Iterable[Any]) -> str:
    """Constraints in words, such as `over 0 and at most 1`; empty where there are none."""
    found = []
    for constraint in constraints:
        if isinstance(constraint, MinLen):
            found.append("not empty")
        elif words := _WORDS.get(type(constraint)):
            found.append(f"{words} {getattr(constraint, type(constraint).__name__.lower())}")  # Ge(ge=1)
    return " and ".join(found)
