"""Packing loses nothing, keeps to its budget, and weighs every sequence alike. No torch, no Ray."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.value.packing import Example, micro_batches

LAYOUTS = ["packed", "bucketed"]
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def examples_of(sizes: list[int]) -> list[Example]:
    return [
        Example(str(index), np.full(size, index + 1, np.int32), size // 3, index % 3)
        for index, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=lengths, budget=st.integers(1, 200))
def test_every_token_occurs_once_within_the_budget(layout, sizes: list[int], budget: int) -> None:
    found = list(micro_batches(examples_of(sizes), budget, 100, layout))
    assert sorted(id for batch in found for id in batch.ids) == sorted(str(i) for i in range(len(sizes)))
    assert sum(batch.attention_mask.sum() for batch in found) == sum(sizes)
    for batch in found:
        assert batch.input_ids.size <= budget or len(batch.ids) == 1
        tokens, counts = np.unique(batch.input_ids[batch.attention_mask == 1], return_counts=True)
        assert all(sizes[token - 1] == count for token, count in zip(tokens, counts, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=lengths)
def test_each_sequence_with_a_target_weighs_one(layout, sizes: list[int]) -> None:
    for batch in micro_batches(examples_of(sizes), 64, 100, layout):
        assert batch.weights.sum() == pytest.approx(batch.sequences, abs=1e-4)
        for id in batch.ids:
            here = (batch.input_ids == int(id) + 1) & (batch.attention_mask == 1)
            targets = here & (batch.weights > 0)
            assert targets.sum() == sizes[int(id)] - sizes[int(id)] // 3
            assert (batch.labels[here] == int(id) % 3).all()
            assert (batch.position_ids[here] == np.arange(sizes[int(id)])).all()


def test_sequence_that_was_cut_off_loses_its_label() -> None:
    [batch] = micro_batches(examples_of([10, 50]), 1000, 20, "packed")
    assert batch.ids == ("0",)


def test_sequence_without_target_takes_no_part() -> None:
    empty = Example("e", np.ones(4, np.int32), 4, 1)
    [batch] = micro_batches([empty, *examples_of([6])], 100, 100, "bucketed")
    assert batch.sequences == 1
    assert batch.weights.sum() == pytest.approx(1)
