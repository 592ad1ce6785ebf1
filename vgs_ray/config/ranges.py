"""Field types with the values that they allow. `vgs_ray.config.checks` enforces them, and `--help` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen

from vgs_ray.config.identity import MODEL

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
Port = Annotated[int, Ge(1), Le(65535)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
"""The values that NumPy and torch both accept."""
Penalty = Annotated[float, Ge(0.01), Le(100)]
"""vLLM accepts any positive value, but extreme ones overflow the logits."""
NonEmptyStr = Annotated[str, MinLen(1)]
Model = Annotated[str, MinLen(1), MODEL]
OptionalModel = Annotated[str, MODEL]

_WORDS = {Ge: "at least", Gt: "over", Le: "at most", Lt: "below"}


def range_text(constraints: Iterable[Any]) -> str:
    """Constraints in words, such as `over 0 and at most 1`; empty if there are none."""
    words = []
    for constraint in constraints:
        if isinstance(constraint, MinLen):
            words.append("not empty")
        elif comparison := _WORDS.get(type(constraint)):
            words.append(f"{comparison} {getattr(constraint, type(constraint).__name__.lower())}")  # Ge(ge=1)
    return " and ".join(words)
