"""VGS labels: outcomes of roll-outs to classes, and the cuts that roll-outs start from. Pure."""

from __future__ import annotations

import random
from typing import Literal

LABELS = {"incorrect": 0, "correct": 1, "incomplete": 2}


def outcome_label(outcome: str) -> int | None:
    """Class of a finished roll-out (arXiv 2505.17373, section 2.2); None for `unknown`, which never becomes a label."""
    return LABELS.get(outcome)


def cut_positions(
    length: int, cuts: int, law: Literal["uniform", "sqrt"], seed: int, scheme: Literal["cuts", "fan"] = "cuts"
) -> list[int]:
    """Positions in [0, length) at which a roll-in of `length` tokens is cut, ascending, reproducible from `seed`.

    With the scheme `fan` it is the same position `cuts` times.

    `sqrt` draws with a density proportional to the square root of the position: late cuts are more frequent. The
    inverse of its distribution function u = (x / length) ** 1.5 is x = length * u ** (2 / 3).
    """
    draw = random.Random(seed)
    power = 2 / 3 if law == "sqrt" else 1.0
    drawn = sorted(min(int(length * draw.random() ** power), max(length - 1, 0)) for _ in range(cuts))
    return drawn[:1] * cuts if scheme == "fan" else drawn
