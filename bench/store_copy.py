"""How fast a node copies tokens to its own disk before it trains: python bench/store_copy.py

Out: MB/s of uncompressed tokens, by the clock and per second of CPU time, for each file of a copy by `build_store`'s `copy_file`.
The tokens are random, with frequencies that fall like 1/rank, so they compress less than text.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.tables.publish import GROUP_ROWS
from vgs_ray.data.lists import ragged
from vgs_ray.data.schemas import TOKENS
from vgs_ray.value.training.store import FileCopy, copy_file

WORDS = 151_000


def write_tokens(path: Path, rows: int, length: int) -> None:
    """A published file of roll-outs, without the columns that are not copied."""
    draw = np.random.default_rng(0)
    ranks = np.repeat(np.arange(WORDS, dtype=np.int32), 1 + 2_000_000 // (10 + np.arange(WORDS)))
    tokens = np.split(ranks[draw.integers(0, len(ranks), rows * length)], rows)
    ids = [f"{index:064d}" for index in range(rows)]
    table = pa.table(
        [ids, ragged(tokens, pa.int32())], schema=pa.schema({"roll_out_id": pa.string(), "tokens": TOKENS})
    )
    pq.write_table(table, path, compression="zstd", row_group_size=GROUP_ROWS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--length", type=int, default=6_000, help="tokens of a row; the mean of a real run")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    size = 4 * options.rows * options.length / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "part.parquet"
        write_tokens(source, options.rows, options.length)
        print(f"{size:,.0f} MB of tokens, {source.stat().st_size / 1e6:,.0f} MB of Parquet")
        for repeat in range(options.repeats):
            clock, cpu = time.perf_counter(), time.process_time()
            copy_file(FileCopy("roll_outs", source, Path(temporary) / "store" / f"{repeat}.arrow"))
            clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
            print(f"{size / clock:>6,.0f} MB/s   {size / cpu:>6,.0f} MB per second of CPU time", flush=True)


if __name__ == "__main__":
    main()
