"""The Prometheus metrics of a running stage. The command exports them through the metrics agent of its node.

Only the command sets them, from the reports of all actors, so there is one time series for each name and label, and no scrape of
many nodes. Ray puts `ray_` before the names, and `_total` after those of counters.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ray.util import metrics

from pipelines.tables.progress_record import Record


class StageMetric(NamedTuple):
    """One metric; `label` is the name of a label besides `run` and `stage`."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    label: str = ""


ROWS = StageMetric("vgs_ray_stage_rows", "counter", "Rows that this command has committed.")
ROWS_DONE = StageMetric("vgs_ray_stage_rows_done", "gauge", "Committed rows of the table, or finished steps.")
ROWS_EXPECTED = StageMetric("vgs_ray_stage_rows_expected", "gauge", "Rows of the finished table, or all steps.")
ROWS_IN_FLIGHT = StageMetric("vgs_ray_stage_rows_in_flight", "gauge", "Rows in the queues and batches of the actors.")
REPLICAS = StageMetric("vgs_ray_stage_replicas", "gauge", "Living actors with engines, or training workers.")
GPUS = StageMetric("vgs_ray_stage_gpus", "gauge", "GPUs of these actors.")
GPU_SECONDS = StageMetric("vgs_ray_stage_gpu_seconds", "counter", "GPUs times seconds that actors held them.")
ERRORS = StageMetric("vgs_ray_stage_errors", "counter", "Rows with an error, by reason.", "reason")
TOKENS = StageMetric("vgs_ray_stage_tokens", "counter", "Tokens that the engines forwarded, by kind.", "kind")
RESTARTS = StageMetric("vgs_ray_stage_engine_restarts", "counter", "Actors that replaced one whose engine had died.")
METRICS = (
    ROWS, ROWS_DONE, ROWS_EXPECTED, ROWS_IN_FLIGHT, REPLICAS, GPUS, GPU_SECONDS, ERRORS, TOKENS, RESTARTS,
)  # fmt: skip


class StageMetrics:
    """Exports the records of one stage.

    Args:
        run, stage: labels of all metrics.
        start: the first record; counters start at 0 with it, so what earlier commands did is not an increase.
    """

    def __init__(self, run: str, stage: str, start: Record) -> None:
        self._tags = {"run": run, "stage": stage}
        self._metrics = {metric: _ray_metric(metric) for metric in METRICS}
        self._counted = _totals(start)
        self.set(start)

    def set(self, record: Record) -> None:
        """Export a record."""
        work = record.work
        gauges = {
            ROWS_DONE: record.rows,
            ROWS_EXPECTED: record.expected,
            ROWS_IN_FLIGHT: work.in_flight,
            REPLICAS: work.replicas,
            GPUS: work.gpus,
        }
        for metric, value in gauges.items():
            if value is not None:
                self._metrics[metric].set(value, self._tags)
        for (metric, label), total in _totals(record).items():
            if (more := total - self._counted.get((metric, label), 0)) > 0:  # Ray's counters do not accept 0
                self._metrics[metric].inc(more, self._tags | ({metric.label: label} if metric.label else {}))
                self._counted[metric, label] = total


def _totals(record: Record) -> dict[tuple[StageMetric, str], float]:
    """The numbers that counters count, by metric and label."""
    work = record.work
    plain = {ROWS: record.rows, GPU_SECONDS: record.gpu_s, RESTARTS: work.restarts}
    labelled = {ERRORS: work.errors, TOKENS: work.tokens}
    totals: dict[tuple[StageMetric, str], float] = {(metric, ""): total for metric, total in plain.items()}
    return totals | {(metric, label): total for metric, each in labelled.items() for label, total in each.items()}


def _ray_metric(metric: StageMetric) -> metrics.Counter | metrics.Gauge:
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    labels = ("run", "stage", metric.label) if metric.label else ("run", "stage")
    return kind(metric.name, metric.text, tag_keys=labels)
