"""VGS labels: classes from the outcomes of roll-outs, hopeless problems, and the cuts where roll-outs start. Pure."""

from __future__ import annotations

import hashlib
import random
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

OUTCOME_CLASSES = {"incorrect": 0, "correct": 1, "incomplete": 2}


def outcome_labels(outcomes: pa.ChunkedArray) -> pa.ChunkedArray:
    """The class of each roll-out (arXiv 2505.17373, section 2.2) as int8. Null for `unknown`, which never becomes a label."""
    names = sorted(OUTCOME_CLASSES, key=OUTCOME_CLASSES.__getitem__)
    return pc.index_in(outcomes, value_set=pa.array(names)).cast(pa.int8())


def hopeless_problems(problem_ids: pa.ChunkedArray, labels: pa.ChunkedArray) -> pa.Array:
    """The problems without a correct roll-out. Roll-outs without a label are not correct."""
    solved = problem_ids.filter(pc.fill_null(pc.equal(labels, OUTCOME_CLASSES["correct"]), False))
    problems = pc.unique(problem_ids)
    return problems.filter(pc.invert(pc.is_in(problems, value_set=pc.unique(solved))))


def of_first_roll_ins(roll_out_ids: pa.ChunkedArray, count: int) -> pa.ChunkedArray:
    """Whether each roll-out belongs to the first `count` roll-ins of its problem, by their index; 0 means all roll-ins."""
    index = pc.struct_field(pc.extract_regex(roll_out_ids, r"/(?P<index>\d+)/[^/]+$"), "index").cast(pa.int64())
    return pc.less(index, count or 2**31)


def keeps_hopeless(problem_id: str, share: float) -> bool:
    """Whether a hopeless problem belongs to the share that is kept. Decided by a hash of its id.

    Raises:
        ValueError: share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(
            f"hopeless_share is {share}, and must be in [0, 1]: 0 drops all such problems, as the paper does"
        )
    digest = hashlib.blake2b(b"hopeless:" + problem_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def cut_positions(
    length: int, cuts: int, law: Literal["uniform", "sqrt"], seed: int, scheme: Literal["cuts", "fan"] = "cuts"
) -> list[int]:
    """Sorted positions in [0, length) at which a roll-in of `length` tokens is cut, reproducible from `seed`.

    The law `sqrt` draws with a density proportional to the square root of the position, so that late cuts are more frequent. The
    inverse of its distribution function u = (x / length) ** 1.5 is x = length * u ** (2 / 3). The scheme `fan` returns one
    position `cuts` times.
    """
    draw = random.Random(seed)
    power = 2 / 3 if law == "sqrt" else 1.0
    count = 1 if scheme == "fan" else cuts
    positions = sorted(min(int(length * draw.random() ** power), max(length - 1, 0)) for _ in range(count))
    return positions * cuts if scheme == "fan" else positions
