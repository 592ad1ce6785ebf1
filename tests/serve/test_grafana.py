"""jobs/grafana.json shows all metrics of the endpoint."""

from __future__ import annotations

from grafana_boards import board, check_expressions, check_layout, names
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import chat, scripted_client

from vgs_ray.serve.metrics import METRICS

DASHBOARD = board("grafana.json")
PREFIX = "vgs_ray"


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
