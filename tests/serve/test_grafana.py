"""jobs/grafana.json shows all metrics of the endpoint."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from scripted_server import chat, scripted_client

from vgs_ray.serve.metrics import METRICS

DASHBOARD: dict[str, Any] = json.loads((Path(__file__).parents[2] / "jobs/grafana.json").read_text())
PREFIX = "vgs_ray"
NAMED = re.compile(r"\$\{prefix\}(\w+)(?:\{(\w+)=~?\"([^\"]+)\"\})?")
"""A metric, and its label with the selected values."""


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


async def exposed() -> list[Family]:
    """Metrics after a search."""
    async with scripted_client() as client:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        return list(text_string_to_metric_families((await client.get("/metrics")).text))


async def test_every_metric_of_an_expression_is_exposed() -> None:
    samples = [sample for family in await exposed() for sample in family.samples]
    for expression in expressions():
        named = NAMED.findall(expression)
        assert named, expression
        for name, label, values in named:
            found = [sample for sample in samples if sample.name == PREFIX + name]
            assert found, name
            seen = {sample.labels[label] for sample in found} if label else set()
            assert not values or set(values.split("|")) <= seen, expression
            for group in re.findall(r"by \((\w+)\)", expression):
                assert all(group in sample.labels for sample in found), expression


async def test_every_metric_is_drawn() -> None:
    drawn = {PREFIX + name for expression in expressions() for name, _, _ in NAMED.findall(expression)}
    endings = ("", "_total", "_bucket")
    assert not [metric.name for metric in METRICS if not drawn & {metric.name + end for end in endings}]
    # The client library adds the creation time of each counter and histogram.
    names = {family.name for family in await exposed() if not family.name.endswith("_created")}
    assert names == {metric.name for metric in METRICS}


def test_panels_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert not [pair for pair in itertools.combinations(cells, 2) if pair[0] & pair[1]]
    assert all(0 <= x < 24 for cell in cells for x, _ in cell), "Grafana's grid has 24 columns"


def test_the_data_source_and_the_scraped_names_are_chosen_in_the_dashboard() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources = [target["datasource"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert [option["value"] for option in variables["prefix"]["options"]] == [f"ray_{PREFIX}", PREFIX]
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(DASHBOARD))) == set(variables)
