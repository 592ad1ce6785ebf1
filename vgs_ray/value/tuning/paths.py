"""The paths with targets of the value that stage tune trains on, and their order.

In: the files that `write_paths` wrote. Out: batches of paths. A batch depends only on the seed and the step, so a resumed run
continues with the paths that were not seen yet, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgs_ray.value.score_sequences import padded
from vgs_ray.value.training.loader import Order, spread
from vgs_ray.value.training.store import ListColumn
from vgs_ray.value.tuning.stored_paths import open_paths

HELD_OUT = 1024
"""Maximum number of paths to validate on."""


class PathBatch(NamedTuple):
    """Some paths, padded on the right.

    Attributes:
        ids: of the paths.
        input_ids, attention_mask: (paths, length).
        rows, columns: (nodes,) places of the targets.
        q: (nodes,) targets.
        correct: (paths,) outcome of each path: 1 correct, 0 incorrect or incomplete, NaN if it is not known.
    """

    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    columns: Tensor
    q: Tensor
    correct: Tensor

    def to(self, device: torch.device) -> PathBatch:
        """The batch with its tensors on a device."""
        return PathBatch(self.ids, *(each.to(device) for each in self[1:]))


class ValuePaths:
    """The paths of a split, sorted by id. Tokens are read from the memory map.

    Args:
        folder: folder that `write_paths` wrote.
        split: `train` or `validation`.
    """

    def __init__(self, folder: Path, split: str) -> None:
        table = open_paths(folder, split)
        self._rows = pc.sort_indices(table["path_id"]).to_numpy()
        self._ids, self._outcomes = table["path_id"], table["outcome"]
        self._tokens, self._positions, self._q = (ListColumn(table[name]) for name in ("tokens", "positions", "q"))

    def __len__(self) -> int:
        return len(self._rows)

    def held_out(self) -> NDArray[np.int64]:
        """At most `HELD_OUT` paths to validate on, spread evenly over the split."""
        return spread(len(self), HELD_OUT)

    def batch(self, paths: Sequence[int]) -> PathBatch:
        """Some paths, by their places in the order of the ids."""
        rows = self._rows[list(paths)]
        positions, q = ([torch.tensor(column[row]) for row in rows] for column in (self._positions, self._q))
        outcomes = [self._outcomes[int(row)].as_py() for row in rows]
        known = {"correct": 1.0, "incorrect": 0.0, "incomplete": 0.0}
        return PathBatch(
            [self._ids[int(row)].as_py() for row in rows],
            *padded([self._tokens[row] for row in rows]),
            torch.repeat_interleave(torch.tensor([len(each) for each in positions])),
            torch.cat(positions).long(),
            torch.cat(q),
            torch.tensor([known.get(outcome, float("nan")) for outcome in outcomes]),
        )


class PathOrder:
    """The training paths of each forward pass of one worker.

    Args:
        paths: the training paths; at least one.
        per_step: paths in one optimizer step.
        per_pass: paths in one forward pass of one worker; divides `per_step`.
        seed: of the order. Each epoch shuffles the paths and has each once.
        rank, workers: this worker, and their number.
    """

    def __init__(self, paths: ValuePaths, per_step: int, per_pass: int, seed: int, rank: int, workers: int) -> None:
        self._paths, self._per_step, self._per_pass = paths, per_step, per_pass
        self._order = Order(np.arange(len(paths) + 1), seed)
        self._rank, self._workers = rank, workers
        self._place = (-1, -1)

    def next(self, step: int) -> PathBatch:
        """The paths of the next forward pass.

        Args:
            step: the optimizer step, from 0.
        """
        passes = self._place[1] + 1 if step == self._place[0] else 0
        self._place = (step, passes)
        begin = (passes * self._workers + self._rank) * self._per_pass
        return self._paths.batch(self._order.batch(step, self._per_step)[begin : begin + self._per_pass].tolist())
