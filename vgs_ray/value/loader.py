"""Training examples from the store, in an order that is a function of the seed and of the samples seen.

In: a store (`vgs_ray.value.store`). Out: examples by position; a restart, with any number of workers, goes on with exactly
the samples that were not seen yet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vgs_ray.value.loss import Loss
from vgs_ray.value.model import CORRECT
from vgs_ray.value.packing import Example
from vgs_ray.value.store import Lists, open_index

Ints = NDArray[np.int64]
INCORRECT = 0


class Examples:
    """One split of a store. Nothing but the index's numbers is read ahead; tokens come from the memory map.

    Attributes:
        lengths, starts: (examples,) tokens of each, and where its target begins.
        labels: (examples,) classes.
    """

    def __init__(self, store: Path, split: str) -> None:
        index = open_index(store, split)
        self.lengths, self.starts = index["length"].to_numpy(), index["start"].to_numpy()
        self.labels = index["label"].to_numpy()
        self._ids, self._problems = index["roll_out_id"], index["problem"].to_numpy()
        self._in, self._out, self._value = (index[name].to_numpy() for name in ("in_row", "out_row", "value_row"))
        self._prompts, self._roll_ins = (Lists(store / "roll_ins", name) for name in ("prompt", "tokens"))
        self._roll_outs, self._values = Lists(store / "roll_outs", "tokens"), Lists(store / "labels", "values")

    def __len__(self) -> int:
        return len(self.lengths)

    def id(self, index: int) -> str:
        """The roll-out's."""
        return self._ids[int(index)].as_py()

    def counts(self) -> list[int]:
        """Examples, and how many there are of each class."""
        return [len(self), *np.bincount(self.labels, minlength=3).tolist()]

    def example(self, index: int) -> Example:
        """One sequence with its targets."""
        start, values = int(self.starts[index]), None
        tokens = np.empty(self.lengths[index], np.int32)
        prompt = self._prompts[self._in[index]]
        tokens[: len(prompt)] = prompt
        tokens[len(prompt) : start] = self._roll_ins[self._in[index]][: start - len(prompt)]
        tokens[start:] = self._roll_outs[self._out[index]]
        if self._value[index] >= 0:
            values = self._values[self._value[index]]
        return Example(self.id(index), tokens, start, int(self.labels[index]), values)

    def units(self, loss: Loss) -> Ints:
        """What a batch is made of, (units, 1) or, for pairs, (units, 2): positions of examples, sorted by problem.

        Pairs are a right and a wrong finished answer to one problem, each answer in at most one pair.

        Raises:
            ValueError: no example has what the loss needs.
        """
        if loss == "bradley_terry":
            units, wants = self._pairs(), "a right and a wrong finished answer to one problem"
        elif loss == "outcome":
            units, wants = np.arange(len(self))[:, None], "a label"
        else:
            units, wants = np.flatnonzero(self._value >= 0)[:, None], "a value for each token (column values of labels)"
        if not len(units):
            raise ValueError(
                f"the train split has no labels that train.loss={loss} can use: it needs {wants}; look at the counts of "
                "stage label, choose another label.kind or train.loss, or lower clean.validation_share"
            )
        return units

    def group_bounds(self, units: Ints, size: int) -> Ints:
        """Where groups of units begin, and the end of the last: neighbours of one problem, `size` of them together (the
        last group of a problem may be smaller)."""
        return group_bounds(self._problems[units[:, 0]], size)

    def _pairs(self) -> Ints:
        """The n-th right answer of a problem with its n-th wrong one."""
        pairs = []
        for begin, end in zip(*_runs(self._problems), strict=True):
            labels = self.labels[begin:end]
            right, wrong = (begin + np.flatnonzero(labels == label) for label in (CORRECT, INCORRECT))
            both = min(len(right), len(wrong))
            pairs.append(np.stack([right[:both], wrong[:both]], 1))
        return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


class Order:
    """Which unit is the n-th sample of a run: each epoch is a new shuffle of groups, and has each unit once.

    Args:
        bounds: (groups + 1,) where each group begins, and the end of the last.
        seed: of the shuffles.
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
    """Where groups begin in a sorted column of problems, and the end of the last group."""
    begins, ends = _runs(problems)
    place = np.arange(len(problems)) - np.repeat(begins, ends - begins)
    return np.append(np.flatnonzero(place % size == 0), len(problems))


def _runs(column: Ints) -> tuple[Ints, Ints]:
    """Begins and ends of the runs of equal neighbours."""
    changes = np.flatnonzero(np.diff(column)) + 1
    return np.concatenate([[0], changes])[: len(column)], np.append(changes, len(column))[: len(column)]
