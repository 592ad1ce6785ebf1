"""The progress of a stage: rows are counted in storage, which takes long if there are many parts, and a log gets lines."""

from __future__ import annotations

import re
import time

import pytest

from pipelines import progress as module
from pipelines.progress import progress


def test_slow_counts_take_a_small_share_of_the_time() -> None:
    counted: list[float] = []

    def count() -> int:
        began = time.monotonic()
        time.sleep(0.1)
        counted.append(time.monotonic() - began)
        return len(counted)

    began = time.monotonic()
    with progress("test", 100, count):
        time.sleep(6.0)
    later = counted[1:-1]
    assert 1 <= len(later) <= 4
    assert sum(later) < 0.08 * (time.monotonic() - began)


def test_lines_of_a_log_have_the_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_S", 0.5)
    monkeypatch.setattr(module, "UPDATE_S", 0.1)
    counts = iter(range(1000))
    with progress("test", 100, lambda: next(counts), note=lambda: "2 errors"):
        time.sleep(1.8)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 5
    for line in lines:
        assert re.fullmatch(
            r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ test     : +\d+%\|.*\| \d+/100 \[.*, 2 errors\]", line
        ), line


def test_a_count_that_fails_for_a_moment_does_not_end_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPDATE_S", 0.05)
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise OSError("the storage does not answer")
        return len(calls)

    with progress("test", 100, count):
        time.sleep(1.0)
    assert len(calls) > 5
