"""The paths that stage tune trains on, in memory-mapped Arrow files.

In: the parts of the table `value_paths`. Out: a file for each split with the tokens and targets of the paths that fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vgs_ray.data.parquet import row_batches
from vgs_ray.data.schemas import VALUE_PATHS
from vgs_ray.data.storage import AnyPath
from vgs_ray.value.tuning.pairs import ROWS, SPLITS, check_tokens

COLUMNS = ("path_id", "tokens", "positions", "q", "outcome")


def write_paths(parts: Sequence[AnyPath], folder: Path, max_length: int, vocabulary: int) -> None:
    """Copy the paths of at most `max_length` tokens.

    Args:
        parts: Parquet files of the table `value_paths`.
        folder: gets the files `paths-train.arrow`, `paths-validation.arrow`, and `paths-left_out.arrow` with the ids of longer
            paths.
        max_length: maximum number of tokens of a path with its prompt.
        vocabulary: number of token ids of the policy.

    Raises:
        UserError: a path has a token id that the policy does not have.
    """
    schemas = {split: pa.schema([VALUE_PATHS.field(name) for name in COLUMNS]) for split in SPLITS}
    schemas["left_out"] = pa.schema([VALUE_PATHS.field("path_id")])
    with ExitStack() as files:
        writers = {
            name: files.enter_context(pa.ipc.new_stream(_file(folder, name), schema))
            for name, schema in schemas.items()
        }
        for batch in (each for part in parts for each in row_batches(part, [*COLUMNS, "split"], ROWS)):
            check_tokens(batch, "path", ("tokens",), vocabulary)
            rows = pa.Table.from_batches([batch])
            fits = pc.less_equal(pc.list_value_length(batch["tokens"]), max_length)
            writers["left_out"].write_table(rows.filter(pc.invert(fits)).select(["path_id"]))
            for split in SPLITS:
                chosen = rows.filter(pc.and_(fits, pc.equal(rows["split"], split)))
                writers[split].write_table(chosen.select(list(COLUMNS)))


def count_paths(folder: Path) -> dict[str, int]:
    """Number of paths in `train`, `validation` and `left_out`."""
    return {name: open_paths(folder, name).num_rows for name in (*SPLITS, "left_out")}


def open_paths(folder: Path, name: str) -> pa.Table:
    """The rows of a split, or the ids of the paths that are `left_out`. The columns are in the memory map."""
    return pa.ipc.open_stream(pa.memory_map(_file(folder, name))).read_all()


def _file(folder: Path, name: str) -> str:
    return str(folder / f"paths-{name}.arrow")
