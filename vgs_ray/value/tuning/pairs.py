"""The pairs that stage tune trains on, in memory-mapped Arrow files.

In: the parts of the table `pairs`. Out: a file for each split with the token ids of the pairs that fit, in the order of their
ids. Tokens are read from the memory map, so the number of pairs is not limited by the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vgs_ray.data.parquet import row_batches
from vgs_ray.data.schemas import PAIRS
from vgs_ray.data.storage import AnyPath
from vgs_ray.errors import UserError

SPLITS = ("train", "validation")
COLUMNS = ("pair_id", "prompt_ids", "chosen_ids", "rejected_ids", "q_chosen", "q_rejected")
SIDES = ("chosen_ids", "rejected_ids")
ROWS = 256
"""Pairs or paths in memory at a time."""


def write_pairs(parts: Sequence[AnyPath], folder: Path, max_length: int, vocabulary: int) -> None:
    """Copy the pairs of at most `max_length` tokens.

    Args:
        parts: Parquet files of the table `pairs`.
        folder: gets the files `train.arrow`, `validation.arrow`, and `left_out.arrow` with the ids of longer pairs.
        max_length: maximum number of tokens of the prompt with either side.
        vocabulary: number of token ids of the policy.

    Raises:
        UserError: a pair has an empty side, or a token id that the policy does not have.
    """
    schema = pa.schema([PAIRS.field(name) for name in COLUMNS])
    left_out = pa.schema([PAIRS.field("pair_id"), PAIRS.field("split")])
    with ExitStack() as files:
        writers = {
            name: files.enter_context(pa.ipc.new_stream(folder / f"{name}.arrow", fields))
            for name, fields in (*((split, schema) for split in SPLITS), ("left_out", left_out))
        }
        for split in SPLITS:
            writers[split].write_batch(pa.RecordBatch.from_pylist([], schema))  # datasets reads no file without a batch
        for batch in (each for part in parts for each in row_batches(part, [*COLUMNS, "split"], ROWS)):
            check_tokens(batch, "pair", ("prompt_ids", *SIDES), vocabulary)
            rows = pa.Table.from_batches([batch])
            fits = pc.less_equal(_lengths(batch), max_length)
            writers["left_out"].write_table(rows.filter(pc.invert(fits)).select(left_out.names))
            for split in SPLITS:
                chosen = rows.filter(pc.and_(fits, pc.equal(rows["split"], split)))
                writers[split].write_table(chosen.select(list(COLUMNS)))


def _lengths(batch: pa.RecordBatch) -> pa.Array:
    longer = pc.max_element_wise(*(pc.list_value_length(batch[side]) for side in SIDES))
    return pc.add(pc.list_value_length(batch["prompt_ids"]), longer)


def check_tokens(batch: pa.RecordBatch, name: str, columns: Sequence[str], vocabulary: int) -> None:
    """Check lists of token ids.

    Args:
        batch: rows with their ids in the column `{name}_id`.
        name: what a row is.
        columns: columns with lists of token ids.
        vocabulary: number of token ids of the policy.

    Raises:
        UserError: a list is empty, or has a token id that the policy does not have.
    """
    ids = batch[f"{name}_id"]
    for column in columns:
        lists = batch[column]
        empty = pc.indices_nonzero(pc.equal(pc.list_value_length(lists), 0))
        if len(empty):
            row = ids[empty[0].as_py()]
            raise UserError(
                f"{name} {row} has no token in {column}; each of its lists needs one: run stage pairs again"
            )
        tokens = lists.flatten()
        unknown = pc.indices_nonzero(pc.or_(pc.less(tokens, 0), pc.greater_equal(tokens, vocabulary)))
        if len(unknown):
            token = unknown[0].as_py()
            row = ids[pc.list_parent_indices(lists)[token].as_py()]
            raise UserError(
                f"{name} {row} has the token id {tokens[token]} in {column}, and the policy has ids below {vocabulary}; pairs "
                "and policy must have the same tokenizer: pass the policy that made the pairs as --tune.init, or make the pairs "
                "again"
            )


def count_pairs(folder: Path) -> dict[str, int]:
    """Number of pairs in `train`, `validation` and `left_out`."""
    return {name: _open(folder, name).num_rows for name in (*SPLITS, "left_out")}


def open_pairs(folder: Path, split: str) -> Any:
    """The pairs of a split as a `datasets.Dataset` with `COLUMNS`, in the order of their ids."""
    from datasets import Dataset

    pairs = Dataset.from_file(str(folder / f"{split}.arrow"))
    return pairs.select(pc.sort_indices(pairs.data.table["pair_id"]))


def _open(folder: Path, name: str) -> pa.Table:
    with pa.memory_map(str(folder / f"{name}.arrow")) as source:
        return pa.ipc.open_stream(source).read_all()
