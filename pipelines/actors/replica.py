"""What the actors of a stage report while they work: rows in flight, errors by reason, and tokens.

Each actor sends its own totals to the tally, an actor on the node of the command, every few seconds and after each commit. The
command reads their sum. A lost message is repaired by the next one, and an actor that dies keeps its last totals.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import ray

from pipelines.tables.progress_record import Work
from vgs_ray.engines.interface import Policy, Usage, Value

REPORT_S = 5.0
GONE_S = 60.0
"""An actor that has not reported for so long does not count as living."""
MAX_REASONS = 20
OTHER = "other"


class Report(NamedTuple):
    """The totals of one actor."""

    gpus: float
    in_flight: int
    errors: dict[str, int]
    tokens: dict[str, int]


class Tally:
    """Adds up the reports of all actors of a stage."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, str], tuple[float, Report]] = {}

    def report(self, actor: str, process: str, report: Report) -> None:
        """Replace the totals of an actor's process; an actor that Ray restarts has a new one."""
        self._reports[actor, process] = time.monotonic(), report

    def work(self) -> Work:
        """The sums."""
        now, errors, tokens = time.monotonic(), Counter[str](), Counter[str]()
        last_of = {actor: last for (actor, _), last in self._reports.items()}
        living = [report for at, report in last_of.values() if now - at < GONE_S]
        for _, report in self._reports.values():
            errors.update(report.errors)
            tokens.update(report.tokens)
        return Work(
            replicas=len(living),
            gpus=sum(report.gpus for report in living),
            in_flight=sum(report.in_flight for report in living),
            restarts=len(self._reports) - len(last_of),
            errors=few_reasons(errors),
            tokens=dict(tokens),
        )


def start_tally(token: str) -> Any:
    """Start the tally of a stage on this node. It ends when its handle is dropped, or with this process."""
    from pipelines.tables.tasks import on_node  # loads Ray Data, which the process of the tally does not need

    node = ray.get_runtime_context().get_node_id()
    tally = ray.remote(num_cpus=0, max_restarts=-1)(Tally)
    return tally.options(name=_name(token), scheduling_strategy=on_node(node)).remote()


def _name(token: str) -> str:
    return f"vgs_ray-tally-{token}"


class Replica:
    """An actor of a stage, as the tally sees it.

    Args:
        token: of the tally, which is the writer of the stage's table; without such a tally, nothing is reported.
        gpus: that Ray reserves for this actor.
    """

    def __init__(self, token: str = "", gpus: float = 0.0) -> None:
        self._gpus, self._usages = gpus, list[Usage]()
        self._in_flight, self._errors, self._lock = 0, Counter[str](), threading.Lock()
        self._tally = None
        if token and ray.is_initialized():
            try:
                self._tally = ray.get_actor(_name(token))
            except ValueError:  # the command has ended
                return
            self._process = ray.get_runtime_context().get_actor_id(), uuid.uuid4().hex
            threading.Thread(target=self._run, name="report", daemon=True).start()

    def uses(self, *engines: Policy | Value | None) -> None:
        """Report the tokens of these engines. One engine may be both policy and value."""
        self._usages = list({id(engine.usage): engine.usage for engine in engines if engine}.values())

    def takes(self, rows: int) -> None:
        """Count rows that the actor has begun."""
        with self._lock:
            self._in_flight += rows

    def commits(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count committed rows. They have a column `error`."""
        with self._lock:
            self._in_flight -= len(rows)
            self._errors.update(reason_of(row["error"]) for row in rows if row["error"] is not None)
        if rows:
            self._report()

    def _run(self) -> None:
        while True:
            self._report()
            time.sleep(REPORT_S)

    def _report(self) -> None:
        if self._tally is None:
            return
        tokens = Counter[str]()
        for usage in self._usages:
            tokens.update(asdict(usage))
        with self._lock:
            report = Report(self._gpus, self._in_flight, dict(self._errors), dict(tokens))
        self._tally.report.remote(*self._process, report)


def reason_of(error: str) -> str:
    """The kind of an error: its first clause, with N for each number, so that errors that differ in numbers only are one kind."""
    return re.sub(r"\d[\d,.]*", "N", re.split(r"[;:\n]", error)[0]).strip()[:80]


def few_reasons(errors: dict[str, int]) -> dict[str, int]:
    """The most frequent reasons; the others are summed."""
    most = dict(Counter(errors).most_common(MAX_REASONS))
    others = sum(errors.values()) - sum(most.values())
    return most | ({OTHER: most.get(OTHER, 0) + others} if others else {})
