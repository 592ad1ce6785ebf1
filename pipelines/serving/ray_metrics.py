"""Export the endpoint's metrics through Ray's metrics agents, which cover all replicas.

A request to `/metrics` reaches an arbitrary search replica. Ray's agents export the same metrics for every replica, as
`ray_vgs_ray_...` with the replica as a label.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

from ray.serve import metrics

from vgs_ray.serve.metrics import METRICS, SECONDS, Metric

INTERVAL_S = 1.0
"""Changes of counters and gauges are summed over this interval, because each call of Ray's metrics takes microseconds."""


class RayMetrics:
    """A `Mirror`. It must be created in a replica, because its metrics have the replica's name."""

    def __init__(self) -> None:
        self._metrics = {metric: _ray_metric(metric) for metric in METRICS}
        self._levels: dict[tuple[Metric, str], float] = defaultdict(float)
        self._pending: deque[tuple[Metric, float, str]] = deque()
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def __call__(self, metric: Metric, amount: float, label: str) -> None:
        """Queue a change for the next interval."""
        self._pending.append((metric, amount, label))

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL_S)
            self._record()

    def _record(self) -> None:
        sums: dict[tuple[Metric, str], float] = defaultdict(float)
        while self._pending:
            metric, amount, label = self._pending.popleft()
            if metric.kind == "histogram":
                self._metrics[metric].observe(amount, _tags(metric, label))
            else:
                sums[metric, label] += amount
        for (metric, label), amount in sums.items():
            if metric.kind == "gauge":  # Ray's gauges can only be set
                self._levels[metric, label] += amount
                self._metrics[metric].set(self._levels[metric, label], _tags(metric, label))
            elif amount > 0:  # Ray's counters do not accept 0
                self._metrics[metric].inc(amount, _tags(metric, label))


def _tags(metric: Metric, label: str) -> dict[str, str]:
    return {metric.label: label} if metric.label else {}


def _ray_metric(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    labels = (metric.label,) if metric.label else ()
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.text, boundaries=list(SECONDS), tag_keys=labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.text, tag_keys=labels)
