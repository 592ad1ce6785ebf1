"""Training examples from the tables, in an order that is a function of the seed and of the samples seen.

In: folders of `labels`, `roll_ins` and `roll_outs`. Out: examples by position; a restart, with any number of workers,
goes on with exactly the samples that were not seen yet.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from vgs_ray.schemas import LABELS, ROLL_INS, ROLL_OUTS
from vgs_ray.value.packing import Example


class Examples:
    """One split of the labels, joined with the tokens they speak of; token columns are read once and shared."""

    def __init__(self, labels: Path, roll_ins: Path, roll_outs: Path, split: str) -> None:
        columns = ["roll_out_id", "roll_in_id", "problem_id", "cut", "label"]
        chosen = pads.dataset(_parts(labels), schema=LABELS).to_table(columns, filter=pc.field("split") == split)
        chosen = chosen.sort_by([("problem_id", "ascending"), ("roll_out_id", "ascending")])
        ins = _read(roll_ins, ROLL_INS, ["roll_in_id", "prompt", "tokens"])
        outs = _read(roll_outs, ROLL_OUTS, ["roll_out_id", "tokens"])
        self.ids: list[str] = chosen["roll_out_id"].to_pylist()
        self._problems: list[str] = chosen["problem_id"].to_pylist()
        self._labels = chosen["label"].to_numpy()
        self._cuts = chosen["cut"].to_numpy()
        self._in = _positions(chosen["roll_in_id"], ins["roll_in_id"])
        self._out = _positions(chosen["roll_out_id"], outs["roll_out_id"])
        self._prompts, self._roll_ins, self._roll_outs = ins["prompt"], ins["tokens"], outs["tokens"]

    def __len__(self) -> int:
        return len(self.ids)

    def example(self, index: int) -> Example:
        prompt = _tokens(self._prompts, self._in[index])
        prefix = _tokens(self._roll_ins, self._in[index])[: self._cuts[index]]
        completion = _tokens(self._roll_outs, self._out[index])
        tokens = np.concatenate([prompt, prefix, completion]).astype(np.int32)
        return Example(self.ids[index], tokens, len(prompt) + len(prefix), int(self._labels[index]))

    def groups(self, size: int) -> list[list[int]]:
        """Neighbouring responses of one problem, `size` together (the last group of a problem may be smaller)."""
        found: list[list[int]] = []
        for index, problem in enumerate(self._problems):
            if found and len(found[-1]) < size and self._problems[found[-1][-1]] == problem:
                found[-1].append(index)
            else:
                found.append([index])
        return found


class Order:
    """Which example is the n-th sample of a run: each epoch is a new shuffle of groups, and has each example once."""

    def __init__(self, groups: list[list[int]], seed: int) -> None:
        self._groups, self._seed = groups, seed
        self.size = sum(map(len, groups))
        if not self.size:
            raise ValueError(
                "the train split has no labels; training needs at least one: look at the counts of stage label, or "
                "lower clean.validation_share"
            )
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int, batch_size: int, rank: int = 0, world: int = 1) -> list[int]:
        """Examples of one worker in one optimizer step."""
        return [self.at(sample) for sample in range(step * batch_size + rank, (step + 1) * batch_size, world)]

    def at(self, sample: int) -> int:
        epoch, position = divmod(sample, self.size)
        return int(self._epoch(epoch)[position])

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        shuffle = np.random.default_rng([self._seed, epoch]).permutation(len(self._groups))
        return np.concatenate([self._groups[index] for index in shuffle])


def _parts(folder: Path) -> list[str]:
    files = sorted(str(path) for path in folder.glob("part-*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no part-*.parquet; training reads that table: run its stage first")
    return files


def _read(folder: Path, schema: pa.Schema, columns: list[str]) -> pa.Table:
    return pads.dataset(_parts(folder), schema=schema).to_table(columns=columns).combine_chunks()


def _positions(keys: pa.ChunkedArray, table_keys: pa.ChunkedArray) -> NDArray[np.int64]:
    found = pc.index_in(keys, value_set=table_keys.combine_chunks())
    if found.null_count:
        missing = keys.filter(pc.is_null(found))[0].as_py()
        raise ValueError(f"label of {missing} has no tokens; labels and tokens must come from one run: run label again")
    return found.to_numpy()


def _tokens(column: pa.ChunkedArray, index: int) -> NDArray[np.int32]:
    return column[int(index)].values.to_numpy()
