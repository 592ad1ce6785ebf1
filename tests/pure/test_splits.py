"""Splits have exact sizes, depend only on the ids, and change little when problems are added or removed."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.data.splits import split_bounds, split_key, split_sizes, splits_of


def splits(ids: list[str], validation: int, test: int) -> dict[str, str]:
    keys = np.array([split_key(identity) for identity in ids], np.uint64)
    return dict(zip(ids, splits_of(keys, split_bounds(keys, validation, test)).to_pylist(), strict=True))


@given(st.integers(0, 400), st.integers(0, 60), st.integers(0, 60), st.randoms())
def test_counts_are_exact_and_the_order_does_not_matter(problems: int, validation: int, test: int, random) -> None:
    ids = [f"{index:016x}" for index in range(problems)]
    split_of = splits(ids, validation, test)
    held, tested = min(validation, problems // 10), min(test, problems // 10)
    wanted = {"validation": held, "test": tested, "train": problems - held - tested}
    assert Counter(split_of.values()) == {name: count for name, count in wanted.items() if count}
    assert split_sizes(problems, validation, test) == (held, tested)
    assert splits(random.sample(ids, problems), validation, test) == split_of


def test_the_published_counts() -> None:
    split_of = splits([f"{index:016x}" for index in range(49_394)], 500, 500)
    assert Counter(split_of.values()) == {"train": 48_394, "validation": 500, "test": 500}


def test_one_problem_more_moves_at_most_one_over_each_bound() -> None:
    ids = [f"{index:016x}" for index in range(1001)]
    before, after = splits(ids[:1000], 50, 50), splits(ids, 50, 50)
    assert sum(before[each] != after[each] for each in ids[:1000]) <= 2
    # More validation problems take from the others; none leaves.
    more = splits(ids, 80, 20)
    assert all(more[each] == "validation" for each, split in after.items() if split == "validation")
