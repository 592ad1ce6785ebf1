"""Which problems are kept for validation and test: exact counts, chosen by a hash of the problem's id. Pure."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MOST = 10
"""Validation and test get at most one problem in so many each, so that a trial on few problems still has some to train on."""


class Bounds(NamedTuple):
    """Keys below `validation` belong to the validation split, those from there to below `test` to the test split."""

    validation: int
    test: int


def split_key(problem_id: str) -> int:
    """A number in [0, 2**64) from a hash of the id: the same on every machine, whatever else is in the table."""
    return int.from_bytes(hashlib.blake2b(b"validation:" + problem_id.encode(), digest_size=8).digest(), "big")


def split_sizes(problems: int, validation: int, test: int) -> tuple[int, int]:
    """Problems of the validation and of the test split, of so many in all."""
    return min(validation, problems // MOST), min(test, problems // MOST)


def split_bounds(keys: NDArray[np.uint64], validation: int, test: int) -> Bounds:
    """The bounds that give both splits their counts: validation has the smallest keys, test those that follow.

    Args:
        keys: (problems,) of `split_key`, in any order.
        validation: problems wanted for validation.
        test: problems wanted for the test split.
    """
    if not len(keys):
        return Bounds(0, 0)
    held, tested = split_sizes(len(keys), validation, test)
    ordered = np.sort(keys)
    return Bounds(int(ordered[held]), int(ordered[held + tested]))


def splits_of(keys: NDArray[np.uint64], bounds: Bounds) -> pa.Array:
    """`train`, `validation` or `test` for each key."""
    places = np.searchsorted(np.array(bounds, np.uint64), keys, side="right").astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(["validation", "test", "train"])).cast(pa.string())
