"""Layout of sequences of different lengths in micro-batches. Pure numpy.

In: sequences with their targets, which are the tokens with a loss. Out: micro-batches with token weights. The weighted sum of
token losses equals the sum over sequences of each sequence's mean loss, so that every way of packing gives the same gradient.

There are two layouts. *Packed*: all sequences in one row, with positions that restart for each sequence; for attention that keeps
sequences apart. The row can end with a *tail*, a sequence without targets, so that rows have few lengths. *Bucketed*: one row per
sequence, padded on the right; for attention that would need a mask over the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Layout = Literal["packed", "bucketed"]
MIN_BOUNDED = 8
"""Minimum number of sequences in the bounds of a packed row; missing ones are empty."""


class Example(NamedTuple):
    """One training sequence: the prompt, the roll-in up to the cut, and the roll-out.

    Attributes:
        id: id of the roll-out.
        tokens: (length,) int32.
        target_start: position of the first roll-out token; earlier tokens are no targets.
        label: class of the finished answer.
        values: (length - target_start,) float32, a value for each roll-out token, NaN for one that is no target; None if there is
            only a label, and all roll-out tokens are targets.
    """

    id: str
    tokens: NDArray[np.int32]
    target_start: int
    label: int
    values: NDArray[np.float32] | None = None


class MicroBatch(NamedTuple):
    """Arrays of shape (rows, length), and the ids of the sequences.

    Attributes:
        input_ids: tokens; 0 on padding.
        position_ids: positions, from 0 in each sequence.
        labels: class of the token's sequence.
        values: value of each target token; 0 for other tokens and for sequences without values.
        weights: 1 / (target tokens of the sequence) for target tokens; 0 for other tokens.
        packed: whether several sequences share a row.
        ids: ids in the order of the targets.
    """

    input_ids: NDArray[np.int32]
    position_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    values: NDArray[np.float32]
    weights: NDArray[np.float32]
    packed: bool
    ids: tuple[str, ...]


def lay_out(examples: Sequence[Example], layout: Layout, last_only: bool = False, multiple: int = 1) -> MicroBatch:
    """Build one micro-batch.

    Args:
        examples: sequences in the order in which their targets shall come. An empty list gives a row without a target, for a
            worker that takes part in the collectives of a step but has no sequence left.
        layout: see the module.
        last_only: only the last token of a sequence is a target (for a ranking of finished answers).
        multiple: the length of a packed row is a multiple of it.
    """
    lengths = [len(example.tokens) for example in examples]
    shape = row_shape(lengths, layout, multiple)
    ids, positions, labels = (np.zeros(shape, np.int32) for _ in range(3))
    values, weights = (np.zeros(shape, np.float32) for _ in range(2))
    offsets = np.cumsum([0, *lengths])
    for index, example in enumerate(examples):
        row, begin = (0, offsets[index]) if layout == "packed" else (index, 0)
        end = begin + len(example.tokens)
        start = end - 1 if last_only else begin + example.target_start
        ids[row, begin:end] = example.tokens
        positions[row, begin:end] = np.arange(end - begin)
        labels[row, begin:end] = example.label
        targets = np.full(end - start, True)
        if example.values is not None and not last_only:
            targets = ~np.isnan(example.values)
            values[row, start:end] = np.where(targets, example.values, 0)
        weights[row, start:end] = targets / max(targets.sum(), 1)
    if layout == "packed":
        positions[0, offsets[-1] :] = np.arange(shape[1] - offsets[-1])  # the tail
    return MicroBatch(
        ids, positions, labels, values, weights, layout == "packed", tuple(example.id for example in examples)
    )


def row_shape(lengths: Sequence[int] | NDArray[np.int64], layout: Layout, multiple: int = 1) -> tuple[int, int]:
    """Rows and length of the micro-batch of sequences of these lengths; it has at least one token."""
    if layout == "packed":
        return 1, max(1, -(-int(sum(lengths)) // multiple)) * multiple
    return max(1, len(lengths)), int(max(lengths, default=1))


def sequence_bounds(position_ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bounds of the sequences in a packed row, (sequences + 1,), for attention to sequences of different lengths.

    Their number is rounded up to a power of two with empty sequences, so that kernels and compiled code see few shapes.

    Args:
        position_ids: (1, length), 0 where a sequence begins.
    """
    starts = np.flatnonzero(position_ids[0] == 0)
    count = max(MIN_BOUNDED, 1 << (len(starts) - 1).bit_length())
    bounds = np.full(count + 1, position_ids.shape[1], np.int32)
    bounds[: len(starts)] = starts
    return bounds


def bucket_by_length(lengths: NDArray[np.int64], budget: int) -> list[list[int]]:
    """Groups of similar length, so that the number of rows times the longest row stays within the budget."""
    packs: list[list[int]] = []
    for place in np.argsort(lengths, kind="stable"):
        if not packs or (len(packs[-1]) + 1) * lengths[place] > budget:
            packs.append([])
        packs[-1].append(int(place))
    return packs
