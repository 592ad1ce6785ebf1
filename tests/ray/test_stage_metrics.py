"""Actors report to the tally of their stage; the command exports metrics, and jobs/grafana_stages.json shows all of them."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from grafana_boards import board, check_expressions, check_layout, names
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from pipelines.actors.replica import MAX_REASONS, OTHER, Replica, few_reasons, reason_of
from pipelines.progress import Watch, Watched
from pipelines.stage_metrics import METRICS
from pipelines.tables.progress_record import Work, read_record
from vgs_ray.data.storage import storage_path
from vgs_ray.engines.scripted import ScriptedPolicy, World

BOARD = board("grafana_stages.json")
LIMIT_S = 60.0
ERRORS = ["prefix has 70 tokens; an extension needs fewer", "prefix has 81 tokens; an extension needs fewer", None]


@ray.remote(num_cpus=0, max_restarts=1, max_task_retries=0)
class Worker:
    """An actor of a stage, with the engine of a scripted policy."""

    def __init__(self, token: str) -> None:
        self.policy = ScriptedPolicy(World())
        self.replica = Replica(token, gpus=0.5)
        self.replica.uses(self.policy, None)

    def work(self) -> None:
        self.replica.takes(5)
        self.policy.usage.generated += 100
        self.replica.commits([{"error": error} for error in ERRORS])

    def die(self) -> None:
        os._exit(1)


def wait(ready: Any) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def scraped(run: str) -> list[Sample]:
    """The samples of a run at the metrics agent of this node."""
    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    families = text_string_to_metric_families(httpx.get(url, trust_env=False).text)
    return [sample for family in families for sample in family.samples if sample.labels.get("run") == run]


@pytest.mark.timeout(300)
def test_the_reports_of_actors_reach_the_record_and_every_panel(local_ray: None, tmp_path: Path) -> None:
    folder = storage_path(tmp_path / "some_run" / "roll_out")
    folder.mkdir(parents=True)
    watch = Watch(Watched(folder, token := uuid.uuid4().hex), "row", 1000, 0)
    workers = [Worker.remote(token) for _ in range(2)]
    ray.get([worker.work.remote() for worker in workers])

    def work() -> Work:
        watch._asked = 0.0
        watch.update(6)
        return watch.record.work

    wait(lambda: work().errors == {"prefix has N tokens": 4})  # what a process has not sent when it dies is lost
    workers[0].die.remote()
    wait(lambda: work().restarts == 1)
    ray.get(workers[0].work.remote())
    watch.end(9, KeyboardInterrupt())
    record = read_record(folder)
    assert record
    assert (record.rows, record.expected, record.ended) == (9, 1000, "interrupted")
    assert record.work.errors == {"prefix has N tokens": 6}
    assert record.work.tokens["generated"] == 300
    assert (record.work.replicas, record.work.gpus, record.work.in_flight) == (2, 1.0, 4)
    assert record.work.restarts == 1
    assert record.gpu_s > 0

    def drawn() -> list[Sample]:
        found = scraped("some_run")
        return found if {f"ray_{metric.name}" for metric in METRICS} <= {bare(sample.name) for sample in found} else []

    samples = wait(drawn)
    check_expressions(BOARD, samples, "ray_vgs_ray")
    rows = [sample.value for sample in samples if sample.name == "ray_vgs_ray_stage_rows_total"]
    assert rows == [9]


def bare(name: str) -> str:
    return name.removesuffix("_total")


def test_every_metric_is_drawn() -> None:
    drawn = {f"vgs_ray{bare(name)}" for name in names(BOARD)}
    assert drawn == {metric.name for metric in METRICS}


def test_the_panels_and_variables_of_the_board_are_consistent() -> None:
    check_layout(BOARD)


def test_reasons_are_few() -> None:
    assert reason_of("prompt has 1,234 tokens; shorten it") == "prompt has N tokens"
    assert len(reason_of("x" * 1000)) <= 80
    counts = {f"reason {chr(97 + at % 26)}{at}": at for at in range(1, 100)}
    few = few_reasons(counts)
    assert len(few) == MAX_REASONS + 1
    assert sum(few.values()) == sum(counts.values())
    assert few[OTHER] == sum(range(1, 80))
