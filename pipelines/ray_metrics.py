"""The endpoint's metrics through Ray's metrics agents, which know every replica.

A scrape of `/metrics` reaches whichever search replica Ray Serve picks. What is recorded here comes out of the agent of each
node, as `ray_vgs_ray_...` with the replica as a label.
"""

from __future__ import annotations

from collections import defaultdict

from ray.serve import metrics

from vgs_ray.serve.metrics import METRICS, SECONDS, Metric


class RayMetrics:
    """A `Mirror`; made inside a replica, whose name its numbers bear."""

    def __init__(self) -> None:
        self._made = {metric: _made(metric) for metric in METRICS}
        self._levels: dict[tuple[str, str], float] = defaultdict(float)

    def __call__(self, metric: Metric, amount: float, label: str) -> None:
        """Record one more amount."""
        made, tags = self._made[metric], {metric.label: label} if metric.label else {}
        if isinstance(made, metrics.Histogram):
            made.observe(amount, tags)
        elif isinstance(made, metrics.Gauge):  # Ray's are only set
            self._levels[metric.name, label] += amount
            made.set(self._levels[metric.name, label], tags)
        elif amount > 0:  # Ray's counters refuse 0
            made.inc(amount, tags)


def _made(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    labels = (metric.label,) if metric.label else ()
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.text, boundaries=list(SECONDS), tag_keys=labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.text, tag_keys=labels)
