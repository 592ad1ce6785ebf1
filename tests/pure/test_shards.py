"""Shards of a published data set: their size, and what a failure leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.tables.shards import ShardWriter


def test_shards_are_bounded_and_lose_nothing(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int64())])
    draw = np.random.default_rng(0).integers(0, 2**60, (40, 500))
    with ShardWriter(tmp_path / "train-00000", schema, limit=20_000) as writer:
        for values in draw:
            writer.write(pa.table({"x": values}))
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5
    assert all(file.stat().st_size < 20_000 + 8 * 500 + 2000 for file in files)
    assert np.concatenate([pq.read_table(file)["x"].to_numpy() for file in files]).tolist() == draw.ravel().tolist()


def test_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "train-00000", pa.schema([("x", pa.int64())]), 10**9) as writer:
            writer.write(pa.table({"x": [1]}))
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fail()
    assert not list(tmp_path.iterdir())
