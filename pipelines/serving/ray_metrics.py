"""The endpoint's metrics through Ray's metrics agents, which know every replica.

A scrape of `/metrics` reaches whichever search replica Ray Serve picks. What is recorded here comes out of the agent of each
node, as `ray_vgs_ray_...` with the replica as a label.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

from ray.serve import metrics

from vgs_ray.serve.metrics import METRICS, SECONDS, Metric

EVERY_S = 1.0
"""Recording takes microseconds, and a block has a dozen numbers: counters and gauges are added up between two turns."""


class RayMetrics:
    """A `Mirror`; made inside a replica, whose name its numbers bear."""

    def __init__(self) -> None:
        self._made = {metric: _made(metric) for metric in METRICS}
        self._levels: dict[tuple[Metric, str], float] = defaultdict(float)
        self._heard: deque[tuple[Metric, float, str]] = deque()
        threading.Thread(target=self._follow, name="metrics", daemon=True).start()

    def __call__(self, metric: Metric, amount: float, label: str) -> None:
        """Note one more amount, for the next turn."""
        self._heard.append((metric, amount, label))

    def _follow(self) -> None:
        while True:
            time.sleep(EVERY_S)
            self._record()

    def _record(self) -> None:
        sums: dict[tuple[Metric, str], float] = defaultdict(float)
        while self._heard:
            metric, amount, label = self._heard.popleft()
            if metric.kind == "histogram":
                self._made[metric].observe(amount, _tags(metric, label))
            else:
                sums[metric, label] += amount
        for (metric, label), amount in sums.items():
            if metric.kind == "gauge":  # Ray's are only set
                self._levels[metric, label] += amount
                self._made[metric].set(self._levels[metric, label], _tags(metric, label))
            elif amount > 0:  # Ray's counters refuse 0
                self._made[metric].inc(amount, _tags(metric, label))


def _tags(metric: Metric, label: str) -> dict[str, str]:
    return {metric.label: label} if metric.label else {}


def _made(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    labels = (metric.label,) if metric.label else ()
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.text, boundaries=list(SECONDS), tag_keys=labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.text, tag_keys=labels)
