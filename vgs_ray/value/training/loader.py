"""Training examples from the store, in an order that is a function of the seed and of the samples seen.

In: a store (`vgs_ray.value.training.store`). Out: examples by position; a restart, with any number of workers, goes on with
exactly the samples that were not seen yet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vgs_ray.labels.outcomes import LABELS
from vgs_ray.value.packing import Example
from vgs_ray.value.training.loss import Loss
from vgs_ray.value.training.store import ListColumn, open_index

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
INCORRECT, CORRECT, INCOMPLETE = (LABELS[name] for name in ("incorrect", "correct", "incomplete"))


class Examples:
    """One split of a store. Nothing but the index's numbers is read ahead; tokens come from the memory map.

    A sequence longer than `max_length` is cut there if its label still holds for what remains (see `cuts`), and else left out.

    Args:
        store: folder of the store.
        split: `train` or `validation`.
        loss: what the examples are for.
        max_length: tokens of the longest sequence.

    Attributes:
        lengths, starts: (examples,) tokens of each after the cut, and where its target begins.
        labels: (examples,) classes.
        cut, left_out: (examples,) which are cut, and which can't be used.
    """

    def __init__(self, store: Path, split: str, loss: Loss, max_length: int) -> None:
        index = open_index(store, split)
        self._split, self._loss, self._max_length = split, loss, max_length
        self.labels = index["label"].to_numpy()
        whole, starts = index["length"].to_numpy(), index["start"].to_numpy()
        self.cut = (whole > max_length) & cuts(self.labels, loss)
        self.left_out = (whole > max_length) & ~self.cut
        self.lengths = np.where(self.cut, np.int32(max_length), whole)
        self.starts = np.minimum(starts, self.lengths)
        self._ids, self._problems = index["roll_out_id"], index["problem"].to_numpy()
        self._in, self._out, self._value = (index[name].to_numpy() for name in ("in_row", "out_row", "value_row"))
        self._prompts, self._roll_ins = (ListColumn(store / "roll_ins", name) for name in ("prompt", "tokens"))
        self._roll_outs, self._values = (
            ListColumn(store / "roll_outs", "tokens"),
            ListColumn(store / "labels", "values"),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def id(self, index: int) -> str:
        """The roll-out's."""
        return self._ids[int(index)].as_py()

    def counts(self, positions: Ints) -> dict[str, int]:
        """How many of some examples there are of each class."""
        found = np.bincount(self.labels[positions.reshape(-1)], minlength=len(LABELS)).tolist()
        return {name: found[label] for name, label in LABELS.items()}

    def example(self, index: int) -> Example:
        """One sequence with its targets."""
        start, size, values = int(self.starts[index]), int(self.lengths[index]), None
        tokens = np.empty(size, np.int32)
        prompt = self._prompts[self._in[index]][:start]
        tokens[: len(prompt)] = prompt
        tokens[len(prompt) : start] = self._roll_ins[self._in[index]][: start - len(prompt)]
        tokens[start:] = self._roll_outs[self._out[index]][: size - start]
        if self._value[index] >= 0:
            values = self._values[self._value[index]][: size - start]
        return Example(self.id(index), tokens, start, int(self.labels[index]), values)

    def units(self) -> Ints:
        """What a batch is made of, (units, 1) or, for pairs, (units, 2): positions of examples, sorted by problem.

        Pairs are a right and a wrong finished answer to one problem, each answer in at most one pair.

        Raises:
            ValueError: no example has what the loss needs.
        """
        if self._loss == "bradley_terry":
            units, wants = self._pairs(), "a right and a wrong finished answer to one problem"
        elif self._loss == "outcome":
            units, wants = np.flatnonzero(~self.left_out)[:, None], "a label"
        else:
            units, wants = np.flatnonzero(self._value >= 0)[:, None], "a value for each token (column values of labels)"
        if not len(units):
            raise ValueError(
                f"the train split has no labels that train.loss={self._loss} can use: it needs {wants} of at most "
                f"{self._max_length} tokens (train.max_length); look at the counts of stage label, choose another label.kind or "
                "train.loss, or lower clean.validation"
            )
        return units

    def held_out(self, most: int) -> Ints:
        """Positions of the examples that validation reads, at most so many, spread over all of them.

        Raises:
            ValueError: there are examples, and none of them has a roll-out token within `max_length`.
        """
        usable = np.flatnonzero(~self.left_out & (self.starts < self.lengths))
        if len(self) and not len(usable):
            raise ValueError(
                f"none of the {len(self)} sequences of the {self._split} split has a roll-out token and fits "
                f"train.max_length={self._max_length}; validation needs one: raise train.max_length"
            )
        return usable[spread(len(usable), most)]

    def group_bounds(self, units: Ints, size: int) -> Ints:
        """Where groups of units begin, and the end of the last: neighbours of one problem, `size` of them together (the
        last group of a problem may be smaller)."""
        return group_bounds(self._problems[units[:, 0]], size)

    def _pairs(self) -> Ints:
        """The n-th right answer of a problem with its n-th wrong one."""
        pairs, answers = [], ~self.left_out & (self.starts < self.lengths)
        for begin, end in zip(*_runs(self._problems), strict=True):
            labels = np.where(answers[begin:end], self.labels[begin:end], -1)
            right, wrong = (begin + np.flatnonzero(labels == label) for label in (CORRECT, INCORRECT))
            both = min(len(right), len(wrong))
            pairs.append(np.stack([right[:both], wrong[:both]], 1))
        return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def cuts(labels: NDArray[np.int8], loss: Loss) -> Mask:
    """Which examples may lose their end and keep what they teach.

    - `outcome`: the incomplete ones. A thought that did not come to an end within the limit did not within a lower one
      either. The published code cuts all classes; an answer that is cut off is no longer there to be right or wrong.
    - `soft`, `mse`: all. Each token has a value of its own.
    - `bradley_terry`: none. A ranking reads the end of a finished answer.
    """
    if loss == "outcome":
        return labels == INCOMPLETE
    return np.full(len(labels), loss != "bradley_terry")


def spread(total: int, most: int) -> Ints:
    """At most `most` positions, evenly over `total`: neighbours belong to one problem, and many problems say more."""
    count = min(total, most)
    return np.arange(count) * total // max(count, 1)


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
