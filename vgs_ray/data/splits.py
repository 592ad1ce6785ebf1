"""The validation and test splits: exact numbers of problems, chosen by a hash of the problem's id. Pure."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HELD_OUT_DIVISOR = 10
"""Validation and test each get at most one in 10 problems, so that a run on few problems still has problems to train on."""


class Bounds(NamedTuple):
    """Keys under `validation` belong to the validation split, other keys under `test` to the test split."""

    validation: int
    test: int


def split_key(problem_id: str) -> int:
    """A hash of the id in [0, 2**64). It does not depend on the machine or on other problems."""
    return int.from_bytes(hashlib.blake2b(b"validation:" + problem_id.encode(), digest_size=8).digest(), "big")


def split_sizes(problems: int, validation: int, test: int) -> tuple[int, int]:
    """The numbers of validation and test problems, from the number of all problems and the numbers in the recipe."""
    return min(validation, problems // HELD_OUT_DIVISOR), min(test, problems // HELD_OUT_DIVISOR)


def split_bounds(keys: NDArray[np.uint64], validation: int, test: int) -> Bounds:
    """The bounds for which both splits have their sizes. Validation has the smallest keys, test the next ones.

    Args:
        keys: (problems,) results of `split_key`, in any order.
        validation: wanted number of validation problems.
        test: wanted number of test problems.
    """
    if not len(keys):
        return Bounds(0, 0)
    validation_size, test_size = split_sizes(len(keys), validation, test)
    ordered = np.sort(keys)
    return Bounds(int(ordered[validation_size]), int(ordered[validation_size + test_size]))


def splits_of(keys: NDArray[np.uint64], bounds: Bounds) -> pa.Array:
    """`train`, `validation` or `test` for each key."""
    codes = np.searchsorted(np.array(bounds, np.uint64), keys, side="right").astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(["validation", "test", "train"])).cast(pa.string())
