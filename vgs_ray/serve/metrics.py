"""The endpoint's Prometheus metrics, in a registry for each application, so that two applications do not share numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (*(float(f"{digit}e{power}") for power in range(-3, 3) for digit in (1.0, 2.5, 5.0)), 1000.0)
"""Upper bounds of the histograms' buckets, from one millisecond."""


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: without the suffix `_total` that Prometheus adds to counters.
        text: its description in Prometheus.
        label: name of its label, if it has one.
        values: label values that exist from the start, with the number 0; others can be added later.
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

SEARCHES_RUNNING = Metric("vgs_ray_searches_running", "gauge", "Running searches.")
SEARCHES_WAITING = Metric("vgs_ray_searches_waiting", "gauge", "Searches and score requests in the queue.")
BEAMS_RUNNING = Metric("vgs_ray_beams_running", "gauge", "Beams of the running searches: the sum of their budgets.")
CALLS_RUNNING = Metric("vgs_ray_calls_running", "gauge", "Calls in an engine's batch or queue.", "engine", ENGINES)
SEARCHES = Metric("vgs_ray_searches", "counter", "Searches by outcome.", "end", ENDS)
REFUSALS = Metric("vgs_ray_refused_requests", "counter", "Refused requests by HTTP status.", "status", REFUSED)
TOKENS = Metric(
    "vgs_ray_tokens", "counter", "Tokens of blocks and scores as the engines counted them, by kind.", "kind", KINDS
)
FLOPS = Metric("vgs_ray_flops", "counter", "Floating-point operations for these tokens.", "engine", ENGINES)
SEARCH_SECONDS = Metric(
    "vgs_ray_search_seconds", "histogram", "Duration of a search, with any outcome, without its time in the queue."
)
WAIT_SECONDS = Metric("vgs_ray_wait_seconds", "histogram", "Time of a search or score request in the queue.")
FIRST_BLOCK_SECONDS = Metric(
    "vgs_ray_first_block_seconds", "histogram", "Time from the start of a search to its first scored block."
)
CALL_SECONDS = Metric(
    "vgs_ray_call_seconds", "histogram", "Duration of one policy block or one value score.", "engine", ENGINES
)
METRICS = (
    SEARCHES_RUNNING, SEARCHES_WAITING, BEAMS_RUNNING, CALLS_RUNNING, SEARCHES, REFUSALS, TOKENS, FLOPS, SEARCH_SECONDS,
    WAIT_SECONDS, FIRST_BLOCK_SECONDS, CALL_SECONDS,
)  # fmt: skip

Mirror = Callable[[Metric, float, str], None]
"""Receives (metric, amount, label value) of every call of `Metrics.add`."""


class Metrics:
    """The metrics of one application.

    Args:
        mirror: receives every change, to export it in another way.
    """

    def __init__(self, mirror: Mirror | None = None) -> None:
        self.registry = CollectorRegistry()
        self._mirror = mirror
        self._collectors = {metric: _collector(metric, self.registry) for metric in METRICS}
        self._updates: dict[tuple[Metric, str], Callable[[float], None]] = {}  # cached: each block makes a dozen calls

    def add(self, metric: Metric, amount: float = 1.0, label: str = "") -> None:
        """Increase a counter, change a gauge, or add an observation to a histogram."""
        update = self._updates.get((metric, label))
        if update is None:
            update = self._updates[metric, label] = self._update(metric, label)
        update(amount)
        if self._mirror:
            self._mirror(metric, amount, label)

    def _update(self, metric: Metric, label: str) -> Callable[[float], None]:
        collector = self._collectors[metric]
        child = collector.labels(label) if metric.label else collector
        return child.observe if isinstance(child, Histogram) else child.inc

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _collector(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = [metric.label] if metric.label else []
    collector: Counter | Gauge | Histogram
    if metric.kind == "histogram":
        collector = Histogram(metric.name, metric.text, labels, buckets=SECONDS, registry=registry)
    else:
        kind = Counter if metric.kind == "counter" else Gauge
        collector = kind(metric.name, metric.text, labels, registry=registry)
    for value in metric.values:
        collector.labels(value)
    return collector
