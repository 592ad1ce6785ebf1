"""jobs/grafana.json shows all metrics of the endpoint."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from grafana_boards import board, check_expressions, check_layout, expressions, names
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import SETTINGS, chat, running, scripted_client, scripted_searcher, wait_until

from pipelines.serving.ingress import free_ports
from vgs_ray.search.flops import ModelSizes
from vgs_ray.search.model_size import ModelSize
from vgs_ray.serve.app import create_app
from vgs_ray.serve.metrics import METRICS

DASHBOARD = board("grafana.json")
PREFIX = "vgs_ray"
PROMETHEUS = shutil.which("prometheus") or ""


async def exposed() -> list[Family]:
    """Metrics after a search."""
    async with scripted_client() as client:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


async def test_every_metric_of_an_expression_is_exposed() -> None:
    check_expressions(DASHBOARD, [sample for family in await exposed() for sample in family.samples], PREFIX)


async def test_every_metric_is_drawn() -> None:
    drawn = {PREFIX + name for name in names(DASHBOARD)}
    endings = ("", "_total", "_bucket")
    assert not [metric.name for metric in METRICS if not drawn & {metric.name + end for end in endings}]
    # The client library adds the creation time of each counter and histogram.
    found = {family.name for family in await exposed() if not family.name.endswith("_created")}
    assert found == {metric.name for metric in METRICS}


def test_the_panels_and_variables_of_the_board_are_consistent() -> None:
    check_layout(DASHBOARD)
    [prefix] = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "prefix"]
    assert [option["value"] for option in prefix["options"]] == [f"ray_{PREFIX}", PREFIX]


@pytest.mark.timeout(120)
@pytest.mark.skipif(not PROMETHEUS, reason="no prometheus on the PATH (Debian: apt-get install prometheus)")
def test_a_prometheus_that_scrapes_the_endpoint_has_data_for_every_expression(tmp_path: Path) -> None:
    """Expressions are sent as Grafana would send them, with its variables replaced."""
    size = ModelSize(1000, 2, 8)
    app = create_app(scripted_searcher(sizes=ModelSizes(size, size)), SETTINGS)
    [port] = free_ports(1)
    with running(app) as url, prometheus(tmp_path, port, url.removeprefix("http://")) as query:
        wait_until(lambda: bool(query("up == 1")), 60)
        for number in range(8):  # rates need several scrapes while they grow
            assert httpx.post(f"{url}/v1/chat/completions", json=chat("3", seed=number)).status_code == 200
            assert httpx.get(f"{url}/v1/models/unknown").status_code == 404
            time.sleep(0.5)
        for expression in expressions(DASHBOARD):
            sent = expression.replace("${prefix}", PREFIX).replace("$__rate_interval", "30s")
            values = [float(series["value"][1]) for series in query(sent)]
            assert values, expression
            assert any(not math.isnan(value) for value in values), expression


@contextmanager
def prometheus(folder: Path, port: int, target: str) -> Iterator[Callable[[str], Any]]:
    """A Prometheus that scrapes one target twice a second; yields a function that evaluates an expression."""
    config = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [{"job_name": "endpoint"}]}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip

    def query(expression: str) -> Any:
        try:
            reply = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, trust_env=False)
        except httpx.ConnectError:  # it is starting
            return []
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]["result"]

    with subprocess.Popen(command) as process:
        try:
            yield query
        finally:
            process.kill()
