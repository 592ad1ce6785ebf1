"""Sequences of unequal length to micro-batches. Pure numpy.

In: sequences with the start of their target and a class. Out: micro-batches whose token weights make the sum of weighted
token losses the sum over sequences of each sequence's mean, so that any way of packing gives the same gradient.

Two layouts. *Packed*: all sequences in one row, positions restart with each of them; for attention that keeps sequences
apart by their positions (flash attention on GPU). *Bucketed*: sequences of like length side by side, padded on the right;
faster where attention pays for the square of the row (CPU).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """

    id: str
    tokens: NDArray[np.int32]
    target_start: int
    label: int


class MicroBatch(NamedTuple):
    """Arrays of shape (rows, length).

    Attributes:
        input_ids: tokens; 0 on padding.
        position_ids: restart at 0 for each sequence.
        attention_mask: 1 on tokens; all ones when packed.
        labels: class of the token's sequence.
        weights: 1 / (target tokens of its sequence) on targets, else 0.
        packed: several sequences share a row.
        sequences: sequences with a target.
        ids: of all sequences.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    packed: bool
    sequences: int
    ids: tuple[str, ...]


def micro_batches(
    examples: Sequence[Example], micro_tokens: int, max_length: int, layout: Layout
) -> Iterator[MicroBatch]:
    """Split one batch so that no micro-batch is larger than `micro_tokens`, padding included (one sequence may be).

    A sequence that is longer than `max_length` is cut and loses its label: its outcome belongs to an end that is not
    there. It has no target, so it is left out.
    """
    ordered = sorted(
        (example for example in examples if not overlong(example, max_length)), key=lambda example: len(example.tokens)
    )
    chunk: list[Example] = []
    for example in ordered:
        area = sum(len(each.tokens) for each in chunk) if layout == "packed" else len(chunk) * len(example.tokens)
        if chunk and area + len(example.tokens) > micro_tokens:
            yield _lay_out(chunk, layout)
            chunk = []
        chunk.append(example)
    if chunk:
        yield _lay_out(chunk, layout)


def overlong(example: Example, max_length: int) -> bool:
    """Its end does not fit, so its label does not hold; callers count these."""
    return len(example.tokens) > max_length


def _lay_out(chunk: list[Example], layout: Layout) -> MicroBatch:
    lengths = [len(example.tokens) for example in chunk]
    shape = (1, sum(lengths)) if layout == "packed" else (len(chunk), max(lengths))
    ids, positions, mask, labels = (np.zeros(shape, np.int64) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    begin = 0
    for index, (example, length) in enumerate(zip(chunk, lengths, strict=True)):
        row, start = (0, begin) if layout == "packed" else (index, 0)
        span = slice(start, start + length)
        ids[row, span] = example.tokens
        positions[row, span] = np.arange(length)
        mask[row, span] = 1
        labels[row, span] = example.label
        targets = length - example.target_start
        if targets > 0:
            weights[row, start + example.target_start : start + length] = 1 / targets
        begin += length
    sequences = sum(len(example.tokens) > example.target_start for example in chunk)
    names = tuple(example.id for example in chunk)
    return MicroBatch(ids, positions, mask, labels, weights, layout == "packed", sequences, names)
