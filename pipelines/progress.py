"""How far a command is: a progress bar on a terminal, or lines with times in a log; and the record and metrics of a stage."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import ray
from obstore.exceptions import BaseError
from ray.exceptions import GetTimeoutError, RayError
from tqdm import tqdm
from upath import UPath

from pipelines.actors.replica import few_reasons, reason_of, start_tally
from pipelines.errors import line_of
from pipelines.stage_metrics import StageMetrics
from pipelines.tables.lease import this_process
from pipelines.tables.progress_record import Work, begin_record, read_record, total_work
from pipelines.tables.stage_table import StageTable, value_counts

UPDATE_S = 0.5
COUNTING_SHARE = 0.05
"""Share of the time in which rows are counted, if that takes less than 3 s; with many parts in storage it takes seconds. They are
counted once a minute at least, because the record shows that the command is alive."""
ASK_S = 5.0
"""Seconds between the questions to the actors, and between two settings of the metrics."""
WRITE_S = 60.0
"""Seconds between two records; fewer at first, so that short stages have some too."""
LOG_S = 60.0
"""Seconds between the lines of a log."""
NOW_S = 600.0
"""The present rate is that of so many seconds."""
UNREACHABLE = (OSError, BaseError)
"""Storage can't be read for a moment; rows are counted again later."""


class Watched(NamedTuple):
    """A stage that others can watch.

    Attributes:
        folder: of the stage.
        token: by which actors find the tally; empty if none report.
        errors: counts the rows of earlier commands with an error, by reason.
    """

    folder: UPath
    token: str = ""
    errors: Callable[[], dict[str, int]] = dict


def watched(out: StageTable) -> Watched:
    """A stage whose actors commit rows with a column `error`."""
    return Watched(out.stage, out.writer, partial(error_counts, out))


def error_counts(table: StageTable) -> dict[str, int]:
    """Committed rows with an error, by reason."""
    counts = Counter[str]()
    for error, count in value_counts(table, "error").items():
        if error != "None":
            counts[reason_of(error)] += count
    return few_reasons(counts)


class Watch:
    """Keeps the record and the metrics of a running stage."""

    def __init__(self, what: Watched, unit: str, expected: int | None, rows: int) -> None:
        self.folder, now = what.folder, time.time()
        self.record = begin_record(what.folder, unit, expected, _owner(), rows, now)
        self.record.work.errors = what.errors() if rows else {}
        self._before, self._now = self.record.work, Work()
        self._tally = start_tally(what.token) if what.token else None
        self._metrics = StageMetrics(what.folder.parent.name, what.folder.name, self.record)
        self._began, self._asked, self._failed = now, now, False
        self._write()

    def update(self, rows: int) -> None:
        """Called often; asks the actors and writes the record from time to time."""
        now = time.time()
        if now - self._asked < ASK_S:
            return
        self._advance(now, rows)
        if now - self._written > min(WRITE_S, max(ASK_S, (now - self._began) / 10)):
            self._write()

    def end(self, rows: int, error: BaseException | None) -> None:
        """Write the last record; `error` ends the command."""
        there = read_record(self.folder) if error else None
        if (
            there and there.owner != self.record.owner
        ):  # this command was displaced, and the record is that of another one
            return
        self._advance(time.time(), rows)
        if error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            self.record.ended = "interrupted" if stopped else line_of(error) or f"{type(error).__name__}: {error}"[:500]
        self._write()

    def line(self) -> str:
        """The state as one line of JSON."""
        record, rate = self.record, self.record.rate(NOW_S)
        state = {
            "time": datetime.fromtimestamp(record.updated, UTC).isoformat(timespec="seconds"),
            "run": self.folder.parent.name,
            "stage": self.folder.name,
            "rows": record.rows,
            "expected": record.expected,
            "rate": None if rate is None else round(rate, 3),
            "errors": sum(record.work.errors.values()),
            "replicas": record.work.replicas,
            "gpu_hours": round(record.gpu_s / 3600, 3),
        }
        return json.dumps(state)

    def _advance(self, now: float, rows: int) -> None:
        if self._tally:
            with suppress(RayError, GetTimeoutError):  # the node is busy, or the tally is being restarted
                self._now = ray.get(self._tally.work.remote(), timeout=ASK_S)
        self.record.advance(now, rows, total_work(self._before, self._now))
        self._asked = now
        self._metrics.set(self.record)

    def _write(self) -> None:
        self._written = time.time()
        self.record.mark()
        try:
            self.record.write(self.folder)
        except Exception as error:  # the stage itself meets the same fault, or it passes
            if not self._failed:
                tqdm.write(f"warning: the record of the progress could not be written ({type(error).__name__})")
            self._failed = True


def _owner() -> dict[str, Any]:
    return {key: value for key, value in this_process().items() if key != "token"}


class _Shown:
    """A bar on a terminal, or lines with times in a log."""

    def __init__(self, bar: dict[str, Any], rows: int, note: Callable[[], str] | None, watch: Watch | None) -> None:
        self._bar, self._first, self._note, self._watch = bar, rows, note, watch
        self._began = self._logged = time.monotonic()
        self._terminal = tqdm(**bar, initial=rows, ncols=100, leave=False) if sys.stderr.isatty() else None

    def show(self, rows: int) -> None:
        """Redraw the bar, or print lines if it is time."""
        if self._terminal is None:
            if time.monotonic() - self._logged >= LOG_S:
                self._log(rows)
            return
        try:
            if self._note:
                self._terminal.set_postfix_str(self._note(), refresh=False)
            self._terminal.update(rows - self._terminal.n)
            self._terminal.refresh()
        except BrokenPipeError:  # standard error is closed, and tqdm has raised while it held its lock
            self._terminal.disable = True
            tqdm.get_lock().release()

    def close(self, rows: int) -> None:
        """Remove the bar, or print the last lines."""
        if self._terminal is None:
            self._log(rows)
        else:
            self._terminal.update(rows - self._terminal.n)
            self._terminal.close()

    def _log(self, rows: int) -> None:
        self._logged = time.monotonic()
        bar = self._bar | {"prefix": self._bar["desc"], "postfix": self._note() if self._note else None}
        del bar["desc"]
        text = tqdm.format_meter(rows, elapsed=self._logged - self._began, initial=self._first, ascii=True, **bar)
        lines = [f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} {text}", *([self._watch.line()] if self._watch else [])]
        with suppress(BrokenPipeError):
            print("\n".join(lines), file=sys.stderr, flush=True)


@contextmanager
def progress(
    name: str,
    total: int | None,
    count: Callable[[], int],
    unit: str = "row",
    note: Callable[[], str] | None = None,
    bar_format: str | None = None,
    watch: Watched | None = None,
) -> Iterator[None]:
    """Show how far the body is while it runs: a bar on a terminal, else a line a minute with the time, and one of JSON.

    Args:
        name: name of the stage.
        total: final count; None shows the elapsed time and the note only, without a `bar_format`.
        count: gives the present count.
        unit: what is counted.
        note: gives a text after the bar.
        bar_format: tqdm's `bar_format`.
        watch: the stage, if it has a record. Needs a Ray session.
    """
    rows = count()
    watching = Watch(watch, unit, total, rows) if watch else None
    layout = bar_format or (None if total else "{desc}: {elapsed}  {postfix}")
    shown = _Shown({"desc": f"{name:<9}", "total": total, "unit": unit, "bar_format": layout}, rows, note, watching)
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(count, shown, watching, stop), daemon=True)
    thread.start()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        stop.set()
        thread.join()
        with suppress(*UNREACHABLE):
            rows = count()
        if watching:
            watching.end(rows, failure)
        shown.close(rows)


def _follow(count: Callable[[], int], shown: _Shown, watching: Watch | None, stop: threading.Event) -> None:
    pause = UPDATE_S
    while not stop.wait(pause):
        began = time.monotonic()
        with suppress(*UNREACHABLE):
            rows = count()
            pause = min(WRITE_S, max(UPDATE_S, (time.monotonic() - began) / COUNTING_SHARE))
            if watching:
                watching.update(rows)
            shown.show(rows)
