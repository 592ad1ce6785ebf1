"""The training store on a node's disk: which files it has, what is written again, and how many memory maps it takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy import CONFIG, read_rows, sources
from upath import UPath

from vgs_ray.data import node_disk
from vgs_ray.data.files import upload_folder
from vgs_ray.data.local_copies import local_copy, remove_local_copy
from vgs_ray.data.schemas import ROLL_OUTS
from vgs_ray.data.storage import list_files
from vgs_ray.errors import UserError
from vgs_ray.value.training import store
from vgs_ray.value.training.loader import open_splits
from vgs_ray.value.training.store import Sources, build_store


def examples_of(folder: Path) -> list[tuple[str, list[int]]]:
    return [
        (example.id, example.tokens.tolist())
        for split in open_splits(folder, CONFIG)
        for example in map(split.example, range(len(split)))
    ]


def maps_of(folder: Path) -> int:
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_missing_file_is_written_again_and_the_others_are_kept(tables: Path, tmp_path: Path) -> None:
    build_store(sources(tables), tmp_path)
    before = examples_of(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in list_files(tmp_path)}
    assert len(times) == 3 * 2 + 2
    (tmp_path / "roll_outs/00001.arrow").unlink()
    (tmp_path / "index-train.arrow").unlink()
    build_store(sources(tables), tmp_path)
    assert examples_of(tmp_path) == before
    now = {name: (tmp_path / name).stat().st_mtime_ns for name in list_files(tmp_path)}
    assert now.keys() == times.keys()
    changed = {name for name in now if now[name] != times[name]}
    assert changed == {"roll_outs/00001.arrow", "index-train.arrow", "index-validation.arrow"}


def test_the_tables_may_be_on_an_object_store(tables: Path, tmp_path: Path, s3_root: UPath) -> None:
    for stage in ("label", "roll_in", "roll_out"):
        upload_folder(tables / stage, s3_root / stage)
    remote = Sources(*([s3_root / file.relative_to(tables).as_posix() for file in files] for files in sources(tables)))
    build_store(remote, tmp_path)
    assert examples_of(tmp_path) == examples_of(tables / "store")


def test_memory_maps_are_as_many_as_files(tables: Path, tmp_path: Path) -> None:
    """The rows of a file may come from thousands of parts: each is a row group, and none takes a map of its own."""
    given, counts = sources(tables), []
    rows = pa.Table.from_pylist(read_rows(given.roll_outs), schema=ROLL_OUTS)
    for size in (1, len(rows)):
        folder = tmp_path / str(size)
        folder.mkdir()
        pq.write_table(rows, folder / "roll_outs.parquet", row_group_size=size)
        build_store(given._replace(roll_outs=[folder / "roll_outs.parquet"]), folder / "store")
        splits = open_splits(folder / "store", CONFIG)
        counts.append(maps_of(folder / "store"))
        assert [split.example(0).id for split in splits]
    assert counts[0] == counts[1] <= 2 + 1 + 2 + 2


def test_a_file_is_copied_with_little_memory(tmp_path: Path) -> None:
    """One row group of 134 MB of tokens."""
    draw, rows = np.random.default_rng(0), 8192
    values = pa.array(draw.integers(0, 150_000, rows * 4096, dtype=np.int32))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * 4096)
    table = pa.table(
        {"roll_out_id": [str(row) for row in range(rows)], "tokens": pa.ListArray.from_arrays(offsets, values)}
    )
    pq.write_table(table, tmp_path / "large.parquet", compression="zstd", row_group_size=rows)
    del values, table
    pool = pa.system_memory_pool()
    before, default = pool.max_memory(), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        store.copy_file(store.FileCopy("roll_outs", tmp_path / "large.parquet", tmp_path / "store/0.arrow"))
    finally:
        pa.set_memory_pool(default)
    assert pool.max_memory() - before < 64 * 2**20


def test_a_full_disk_is_one_line(tables: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems can't be mounted here (needs root)")
    try:
        with pytest.raises(UserError, match=r"GB free, and the tokens to train on take .* start Ray with TMPDIR set"):
            build_store(sources(tables), disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_copy_on_a_node_follows_its_source(s3_root: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_disk.tempfile, "tempdir", str(tmp_path))
    for version in ("a", "b"):
        (s3_root / "model/file").write_text(version)
        copy = local_copy(s3_root / "model", version)
        assert (copy / "file").read_text() == version
        assert local_copy(s3_root / "model", version) == copy
        assert copy.is_relative_to(tmp_path)
        remove_local_copy(copy, s3_root / "model")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
