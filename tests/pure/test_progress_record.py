"""The record of a running stage: its size, its rates, and a command that continues the stage."""

from __future__ import annotations

import pytest
from upath import UPath

from pipelines.tables.progress_record import FILE, MAX_POINTS, Record, Work, begin_record, read_record, total_work
from vgs_ray.data.files import make_folder
from vgs_ray.data.storage import list_files

OWNER = {"host": "a", "machine": "", "process": 1, "since": "2026-11-27 12:00:00+00:00"}
START = 1_700_000_000.0


def advanced(record: Record, folder: UPath, minutes: int, rows_a_minute: int, work: Work | None = None) -> None:
    """A point a minute, and the file at the end."""
    for _ in range(minutes):
        record.advance(record.updated + 60, record.rows + rows_a_minute, work or Work())
        record.mark()
    record.write(folder)


def test_a_week_of_records_stays_small_and_keeps_its_rates(tmp_path: UPath) -> None:
    record = begin_record(tmp_path, "row", 2_500_000, OWNER, 0, START)
    advanced(record, tmp_path, 7 * 24 * 60 - 60, 200)
    advanced(record, tmp_path, 50, 100)
    advanced(record, tmp_path, 10, 50)
    read = read_record(tmp_path)
    assert read == record
    assert len(record.points) <= MAX_POINTS
    assert (tmp_path / FILE).stat().st_size < 50_000
    assert record.rate(600) == pytest.approx(50 / 60)
    assert record.rate(3600) == pytest.approx((50 * 100 + 10 * 50) / 3600)
    assert record.rate(float("inf")) == pytest.approx(record.rows / record.active_s, rel=0.01)


def test_one_request_writes_and_one_reads_the_record_on_an_object_store(any_root: UPath) -> None:
    make_folder(any_root)
    record = begin_record(any_root, "row", 10, OWNER, 0, START)
    advanced(record, any_root, 3, 1)
    assert list_files(any_root).keys() == {FILE}
    assert read_record(any_root) == record


def test_the_next_command_adds_to_the_time_and_the_gpus_but_not_the_pause(tmp_path: UPath) -> None:
    first = begin_record(tmp_path, "row", 1000, OWNER, 0, START)
    advanced(first, tmp_path, 10, 20, Work(2, 2.0, 8, 1, {"late": 3}, {"generated": 50}))
    second = begin_record(tmp_path, "row", 1000, OWNER | {"process": 2}, 210, START + 100_000)
    assert second.work.errors == {"late": 3}
    before = second.work
    for _ in range(10):
        work = total_work(before, Work(4, 4.0, 8, 0, {"late": 1}, {"generated": 70}))
        second.advance(second.updated + 60, second.rows + 20, work)
        second.mark()
    assert second.active_s == 20 * 60
    assert second.gpu_s == 540 * 2 + 540 * 4
    assert second.rate(float("inf")) == pytest.approx(20 / 60, rel=0.1)
    assert (second.work.errors, second.work.tokens, second.work.restarts) == ({"late": 4}, {"generated": 120}, 1)
    assert (second.work.replicas, second.work.gpus) == (4, 4.0)


def test_the_history_ends_when_rows_were_removed_or_something_else_is_counted(tmp_path: UPath) -> None:
    record = begin_record(tmp_path, "row", 1000, OWNER, 0, START)
    advanced(record, tmp_path, 5, 20)
    assert len(begin_record(tmp_path, "row", 1000, OWNER, 100, START).points) == 5
    assert begin_record(tmp_path, "row", 1000, OWNER, 60, START).points == []
    assert begin_record(tmp_path, "step", 50, OWNER, 100, START).points == []
    assert begin_record(tmp_path, "step", 50, OWNER, 100, START).active_s == 300


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": 1}'])
def test_a_damaged_record_counts_as_none(tmp_path: UPath, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_record(tmp_path) is None
    assert begin_record(tmp_path, "row", 10, OWNER, 3, START).rows == 3
