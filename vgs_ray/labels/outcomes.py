"""VGS labels: outcomes of roll-outs to classes, problems without hope, and the cuts that roll-outs start from. Pure."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

LABELS = {"incorrect": 0, "correct": 1, "incomplete": 2}


def outcome_label(outcome: str) -> int | None:
    """Class of a finished roll-out (arXiv 2505.17373, section 2.2); None for `unknown`, which never becomes a label."""
    return LABELS.get(outcome)


def outcome_labels(outcomes: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same for a column: int8, null where there is no label."""
    names = sorted(LABELS, key=LABELS.__getitem__)
    return pc.index_in(outcomes, value_set=pa.array(names)).cast(pa.int8())


def hopeless_problems(problem_ids: pa.ChunkedArray, labels: pa.ChunkedArray) -> pa.Array:
    """The problems of which no roll-out is correct; whatever is unknown is not correct."""
    solved = problem_ids.filter(pc.fill_null(pc.equal(labels, LABELS["correct"]), False))
    every = pc.unique(problem_ids)
    return every.filter(pc.invert(pc.is_in(every, value_set=pc.unique(solved))))


def keeps_hopeless(problem_id: str, share: float) -> bool:
    """Whether a hopeless problem is among the share that is kept: from a hash of its id, the same on every machine.

    Raises:
        ValueError: share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(
            f"hopeless_share is {share}, and must lie in [0, 1]: 0 leaves out all such problems (the paper)"
        )
    digest = hashlib.blake2b(b"hopeless:" + problem_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


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
    places = 1 if scheme == "fan" else cuts  # the earliest of several would not follow the law
    drawn = sorted(min(int(length * draw.random() ** power), max(length - 1, 0)) for _ in range(places))
    return drawn * cuts if scheme == "fan" else drawn
