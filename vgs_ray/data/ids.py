"""Ids and seeds, known before generation. A row's seed depends on the run's seed and the row's id, never on the order."""

from __future__ import annotations

import hashlib
from typing import Literal


def stable_seed(run_seed: int, *path: str | int) -> int:
    """A seed in [0, 2**31) from the run's seed and a path such as (problem, group, round, index)."""
    text = "\x1f".join([str(run_seed), *map(str, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 2**31


def problem_id(text: str) -> str:
    """16 hex digits: a hash of the problem's text in lower case with normalized white space."""
    normal = " ".join(text.lower().split())
    return hashlib.blake2b(normal.encode(), digest_size=8).hexdigest()


def roll_in_id(problem: str, policy: str, index: int) -> str:
    return f"{problem}/{policy}/{index}"


def roll_out_id(roll_in: str, cut_index: int | Literal["whole"]) -> str:
    """The id of a completion from a cut, or of the whole roll-in."""
    return f"{roll_in}/{cut_index}"


def tree_id(problem: str, index: int) -> str:
    return f"{problem}/tree/{index}"
