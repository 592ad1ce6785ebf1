"""Sequences of unequal length to micro-batches. Pure numpy.

In: sequences with their targets. Out: micro-batches whose token weights make the sum of weighted token losses the sum over
sequences of each sequence's mean, so that any way of packing gives the same gradient.

Two layouts. *Packed*: all sequences in one row, positions restart with each of them; for attention that keeps sequences
apart. *Bucketed*: sequences of like length side by side, padded on the right; for attention that would need a mask over the
square of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Layout = Literal["packed", "bucketed"]


class Example(NamedTuple):
    """One training sequence: prompt, roll-in up to the cut, roll-out.

    Attributes:
        id: the roll-out's.
        tokens: (length,) int32.
        target_start: position of the first roll-out token; earlier ones take no part in the loss.
        label: class of the finished answer.
        values: (length - target_start,) float32, a value for each roll-out token; None where there is only the label.
    """

    id: str
    tokens: NDArray[np.int32]
    target_start: int
    label: int
    values: NDArray[np.float32] | None = None


class MicroBatch(NamedTuple):
    """Arrays of shape (rows, length).

    Attributes:
        input_ids: tokens; 0 on padding.
        position_ids: restart at 0 for each sequence.
        labels: class of the token's sequence.
        values: of each target token; 0 elsewhere and where the sequence has none.
        weights: 1 / (target tokens of its sequence) on targets, else 0.
        packed: several sequences share a row.
        ids: of all sequences, in the order in which their targets come.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    values: NDArray[np.float32]
    weights: NDArray[np.float32]
    packed: bool
    ids: tuple[str, ...]


def lay_out(examples: Sequence[Example], layout: Layout, last_only: bool = False) -> MicroBatch:
    """One micro-batch.

    Args:
        examples: sequences in the order in which their targets are to come. None of them makes a micro-batch of one token
            without a target, for a worker that has nothing left to do while others still run theirs.
        layout: see the module.
        last_only: the only target is the last token (a ranking of finished answers).
    """
    lengths = [len(example.tokens) for example in examples] or [1]
    shape = (1, sum(lengths)) if layout == "packed" else (len(lengths), max(lengths))
    ids, positions, labels = (np.zeros(shape, np.int64) for _ in range(3))
    values, weights = (np.zeros(shape, np.float32) for _ in range(2))
    begins = np.cumsum([0, *lengths])
    for index, example in enumerate(examples):
        row, begin = (0, begins[index]) if layout == "packed" else (index, 0)
        end = begin + len(example.tokens)
        start = end - 1 if last_only else begin + example.target_start
        ids[row, begin:end] = example.tokens
        positions[row, begin:end] = np.arange(end - begin)
        labels[row, begin:end] = example.label
        if example.values is not None:
            values[row, begin + example.target_start : end] = example.values
        if start < end:
            weights[row, start:end] = 1 / (end - start)
    return MicroBatch(
        ids, positions, labels, values, weights, layout == "packed", tuple(example.id for example in examples)
    )
