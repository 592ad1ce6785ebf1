"""Field types with the values that they allow. `vgs_ray.config.checks` enforces them, and `--help` shows them."""

from __future__ import annotations

from typing import Annotated

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
Labels = tuple[Annotated[str, MinLen(1)], ...]
"""Of nodes, as KEY=VALUE. The value may be one of Ray's conditions: !VALUE, in(A,B) or !in(A,B)."""
Model = Annotated[str, MinLen(1), MODEL]
OptionalModel = Annotated[str, MODEL]
