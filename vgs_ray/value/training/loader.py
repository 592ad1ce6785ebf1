"""Training examples from the store, and their order.

In: a store (`vgs_ray.value.training.store`). Out: examples by position, in an order that depends only on the seed and the
number of samples seen. A resumed run, with any number of workers, continues with exactly the samples that were not seen yet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vgs_ray.config import Train
from vgs_ray.config.train import Loss
from vgs_ray.labels.outcomes import OUTCOME_CLASSES
from vgs_ray.value.packing import Example
from vgs_ray.value.training.store import SPLITS, ListColumns, open_columns, open_index

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
INCORRECT, CORRECT, INCOMPLETE = (OUTCOME_CLASSES[name] for name in ("incorrect", "correct", "incomplete"))
HELD_OUT = 1024
"""Maximum number of sequences to validate on."""


class Examples:
    """One split of a store. Only the numbers of the index are in memory; tokens are read from the memory map.

    A sequence longer than `max_length` is truncated if its label stays valid (see `may_be_truncated`), and left out otherwise.

    Args:
        store: folder of the store.
        split: `train` or `validation`.
        loss: the loss that the examples are for.
        max_length: maximum number of tokens of a sequence.
        columns: the columns of the store, if they are open already.

    Attributes:
        lengths: (examples,) tokens, after truncation.
        starts: (examples,) position of the first roll-out token.
        labels: (examples,) classes.
        truncated, left_out: (examples,) masks of the examples that are too long.
    """

    def __init__(
        self, store: Path, split: str, loss: Loss, max_length: int, columns: ListColumns | None = None
    ) -> None:
        index = open_index(store, split)
        self._split, self._loss, self._max_length = split, loss, max_length
        self.labels = index["label"].to_numpy()
        whole, starts = index["length"].to_numpy(), index["start"].to_numpy()
        self.truncated = (whole > max_length) & may_be_truncated(self.labels, loss)
        self.left_out = (whole > max_length) & ~self.truncated
        self.lengths = np.where(self.truncated, np.int32(max_length), whole)
        self.starts = np.minimum(starts, self.lengths)
        self._ids, self._problems = index["roll_out_id"], index["problem"].to_numpy()
        self._in, self._out, self._value = (index[name].to_numpy() for name in ("in_row", "out_row", "value_row"))
        self._columns = columns or open_columns(store)

    def __len__(self) -> int:
        return len(self.lengths)

    def id(self, index: int) -> str:
        """Id of the roll-out."""
        return self._ids[int(index)].as_py()

    def counts(self, positions: Ints) -> dict[str, int]:
        """Number of the given examples by class."""
        counts = np.bincount(self.labels[positions.reshape(-1)], minlength=len(OUTCOME_CLASSES)).tolist()
        return {name: counts[label] for name, label in OUTCOME_CLASSES.items()}

    def example(self, index: int) -> Example:
        """One sequence with its targets."""
        start, size, values = int(self.starts[index]), int(self.lengths[index]), None
        tokens = np.empty(size, np.int32)
        prompt = self._columns.prompts[self._in[index]][:start]
        tokens[: len(prompt)] = prompt
        tokens[len(prompt) : start] = self._columns.roll_ins[self._in[index]][: start - len(prompt)]
        tokens[start:] = self._columns.roll_outs[self._out[index]][: size - start]
        if self._value[index] >= 0 and self._loss in ("soft", "mse"):
            values = self._columns.values[self._value[index]][: size - start]
        return Example(self.id(index), tokens, start, int(self.labels[index]), values)

    def units(self) -> Ints:
        """Units that batches consist of, sorted by problem: positions of examples, (units, 1) or, for pairs, (units, 2).

        A pair is a correct and an incorrect answer to the same problem; an answer is in at most one pair.

        Raises:
            ValueError: no example has what the loss needs.
        """
        if self._loss == "bradley_terry":
            units, needed = self._pairs(), "a correct and an incorrect answer to one problem"
        elif self._loss == "outcome":
            units, needed = np.flatnonzero(~self.left_out)[:, None], "a label"
        else:
            units, needed = (
                np.flatnonzero(self._value >= 0)[:, None],
                "a value for each token (column values of labels)",
            )
        if not len(units):
            raise ValueError(
                f"the train split has no example for train.loss={self._loss}; the loss needs {needed} of at most "
                f"{self._max_length} tokens (train.max_length): check the counts of stage label, choose another label.kind or "
                "train.loss, or lower clean.validation"
            )
        return units

    def held_out(self, most: int) -> Ints:
        """Positions of at most `most` examples for validation, spread evenly over the split.

        Raises:
            ValueError: the split has examples, but none with a roll-out token within `max_length`.
        """
        usable = np.flatnonzero(~self.left_out & (self.starts < self.lengths))
        if len(self) and not len(usable):
            raise ValueError(
                f"none of the {len(self)} sequences of the {self._split} split has a roll-out token within "
                f"train.max_length={self._max_length}; validation needs at least one: raise train.max_length"
            )
        return usable[spread(len(usable), most)]

    def group_bounds(self, units: Ints, size: int) -> Ints:
        """`group_bounds` of the units' problems."""
        return group_bounds(self._problems[units[:, 0]], size)

    def _pairs(self) -> Ints:
        """The n-th correct answer to a problem with its n-th incorrect one."""
        pairs, usable = [], ~self.left_out & (self.starts < self.lengths)
        for begin, end in zip(*_runs(self._problems), strict=True):
            labels = np.where(usable[begin:end], self.labels[begin:end], -1)
            right, wrong = (begin + np.flatnonzero(labels == label) for label in (CORRECT, INCORRECT))
            both = min(len(right), len(wrong))
            pairs.append(np.stack([right[:both], wrong[:both]], 1))
        return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def open_splits(store: Path, config: Train) -> tuple[Examples, Examples]:
    """The train and the validation split of a store."""
    columns = open_columns(store)
    train, validation = (Examples(store, split, config.loss, config.max_length, columns) for split in SPLITS)
    return train, validation


def may_be_truncated(labels: NDArray[np.int8], loss: Loss) -> Mask:
    """Which examples keep a valid target when they lose their end, (examples,).

    - `outcome`: incomplete ones. An answer that is incomplete at the limit is also incomplete at a lower limit. The published
      code truncates all classes, although a truncated answer is neither correct nor incorrect.
    - `soft`, `mse`: all, because each token has its own value.
    - `bradley_terry`: none, because a ranking reads the last token of a finished answer.
    """
    if loss == "outcome":
        return labels == INCOMPLETE
    return np.full(len(labels), loss != "bradley_terry")


def spread(total: int, most: int) -> Ints:
    """At most `most` positions, evenly over `total`. Neighbours share a problem, so this covers more problems than a prefix."""
    count = min(total, most)
    return np.arange(count) * total // max(count, 1)


class Order:
    """Order of the units in a run: each epoch shuffles the groups and has each unit once.

    Args:
        bounds: (groups + 1,) first unit of each group, and the end of the last group.
        seed: seed of the shuffles.
    """

    def __init__(self, bounds: Ints, seed: int) -> None:
        self._begins, self._sizes, self._seed = bounds[:-1], np.diff(bounds), seed
        self.size = int(bounds[-1])
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int, batch_size: int) -> Ints:
        """Units of one optimizer step, over all workers."""
        return np.array([self.at(sample) for sample in range(step * batch_size, (step + 1) * batch_size)])

    def at(self, sample: int) -> int:
        epoch, position = divmod(sample, self.size)
        return int(self._epoch(epoch)[position])

    def _shuffled(self, epoch: int) -> Ints:
        shuffle = np.random.default_rng([self._seed, epoch]).permutation(len(self._sizes))
        sizes = self._sizes[shuffle]
        inside = np.arange(self.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.repeat(self._begins[shuffle], sizes) + inside


def group_bounds(problems: Ints, size: int) -> Ints:
    """Bounds of groups of `size` neighbours of one problem, for `Order`; the last group of a problem may be smaller.

    Args:
        problems: (units,) problem of each unit, sorted.
        size: units in a group.
    """
    begins, ends = _runs(problems)
    place = np.arange(len(problems)) - np.repeat(begins, ends - begins)
    return np.append(np.flatnonzero(place % size == 0), len(problems))


def _runs(column: Ints) -> tuple[Ints, Ints]:
    """Begins and ends of the runs of equal neighbours."""
    changes = np.flatnonzero(np.diff(column)) + 1
    return np.concatenate([[0], changes])[: len(column)], np.append(changes, len(column))[: len(column)]
