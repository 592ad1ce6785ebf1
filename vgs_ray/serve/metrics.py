"""Numbers for Prometheus: what they are, and one registry for each application, so that two of them in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (*(float(f"{digit}e{power}") for power in range(-3, 3) for digit in (1.0, 2.5, 5.0)), 1000.0)
"""Upper bounds of the histograms' buckets, from a millisecond on."""


class Metric(NamedTuple):
    """One metric; the text after its name is what Prometheus shows.

    Attributes:
        name: without Prometheus' `_total` of counters.
        label: its one label, where it has one.
        values: of the label that are there from the start, at 0; others may come.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    label: str = ""
    values: tuple[str, ...] = ()


ENGINES = ("policy", "value")
KINDS = ("generated", "prefilled", "cached", "scored")
ENDS = ("done", "late", "cancelled", "refused", "failed")
REFUSED = ("400", "401", "404", "408", "413", "429")

SEARCHES_RUNNING = Metric("vgs_ray_searches_running", "gauge", "Searches under way.")
SEARCHES_WAITING = Metric("vgs_ray_searches_waiting", "gauge", "Searches and scores that wait for room.")
BEAMS_RUNNING = Metric("vgs_ray_beams_running", "gauge", "Beams of the searches under way: the sum of their budgets.")
CALLS_RUNNING = Metric(
    "vgs_ray_calls_running", "gauge", "Blocks or scores that an engine batches or that wait for it.", "engine", ENGINES
)
SEARCHES = Metric("vgs_ray_searches", "counter", "Searches by how they ended.", "end", ENDS)
REFUSALS = Metric("vgs_ray_refused_requests", "counter", "Requests refused, by HTTP status.", "status", REFUSED)
TOKENS = Metric(
    "vgs_ray_tokens", "counter", "Tokens of blocks and scores, as the engines counted them, by kind.", "kind", KINDS
)
FLOPS = Metric("vgs_ray_flops", "counter", "Floating-point operations for these tokens.", "engine", ENGINES)
SEARCH_SECONDS = Metric("vgs_ray_search_seconds", "histogram", "Time of a search, however it ended, without its wait.")
WAIT_SECONDS = Metric("vgs_ray_wait_seconds", "histogram", "Time that a search or a score waited for room.")
FIRST_BLOCK_SECONDS = Metric(
    "vgs_ray_first_block_seconds", "histogram", "Time from a search's start to its tree's first block, scored."
)
CALL_SECONDS = Metric(
    "vgs_ray_call_seconds", "histogram", "Time of one policy block or one value score.", "engine", ENGINES
)
METRICS = (
    SEARCHES_RUNNING, SEARCHES_WAITING, BEAMS_RUNNING, CALLS_RUNNING, SEARCHES, REFUSALS, TOKENS, FLOPS, SEARCH_SECONDS,
    WAIT_SECONDS, FIRST_BLOCK_SECONDS, CALL_SECONDS,
)  # fmt: skip

Mirror = Callable[[Metric, float, str], None]
"""Hears of every (metric, amount, label's value) as `Metrics.add` does."""


class Metrics:
    """What the endpoint counts.

    Args:
        mirror: told the same, for another way out of the process.
    """

    def __init__(self, mirror: Mirror | None = None) -> None:
        self.registry = CollectorRegistry()
        self._mirror = mirror
        self._made = {metric: _made(metric, self.registry) for metric in METRICS}
        self._adders: dict[
            tuple[Metric, str], Callable[[float], None]
        ] = {}  # a block has a dozen numbers: each found once

    def add(self, metric: Metric, amount: float = 1.0, label: str = "") -> None:
        """Raise a counter, move a gauge up or down, or tell a histogram of one more case."""
        adder = self._adders.get((metric, label))
        if adder is None:
            adder = self._adders[metric, label] = self._adder(metric, label)
        adder(amount)
        if self._mirror:
            self._mirror(metric, amount, label)

    def _adder(self, metric: Metric, label: str) -> Callable[[float], None]:
        made = self._made[metric]
        target = made.labels(label) if metric.label else made
        return target.observe if isinstance(target, Histogram) else target.inc

    def text(self) -> bytes:
        """In Prometheus' own format."""
        return generate_latest(self.registry)


def _made(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = [metric.label] if metric.label else []
    if metric.kind == "histogram":
        made: Counter | Gauge | Histogram = Histogram(
            metric.name, metric.text, labels, buckets=SECONDS, registry=registry
        )
    else:
        kind = Counter if metric.kind == "counter" else Gauge
        made = kind(metric.name, metric.text, labels, registry=registry)
    for value in metric.values:
        made.labels(value)
    return made
