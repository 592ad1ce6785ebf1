"""Grafana dashboards in jobs/, and whether the metrics that they name have data."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.samples import Sample

NAMED = re.compile(r"(?:\$\{prefix\}|ray_vgs_ray)(\w+)(?:\{(\w+)=~?\"([^\"]+)\"\})?")
"""A metric, and its label with the selected values, which may be a variable of the board."""


def board(file: str) -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parents[2] / "jobs" / file).read_text()))


def expressions(of: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in of["panels"] for target in panel["targets"]]


def names(of: dict[str, Any]) -> set[str]:
    """The metrics of all expressions without the prefix."""
    return {name for expression in expressions(of) for name, _, _ in NAMED.findall(expression)}


def check_expressions(of: dict[str, Any], samples: Sequence[Sample], prefix: str) -> None:
    """Each metric of each expression has samples, with the labels that are selected and grouped by."""
    for expression in expressions(of):
        named = NAMED.findall(expression)
        assert named, expression
        for name, label, values in named:
            found = [sample for sample in samples if sample.name == prefix + name]
            assert found, name
            seen = {sample.labels[label] for sample in found} if label else set()
            assert not values or values.startswith("$") or set(values.split("|")) <= seen, expression
            for group in re.findall(r"by \(([\w, ]+)\)", expression):
                assert all(one in sample.labels for sample in found for one in group.split(", ")), expression


def check_layout(of: dict[str, Any]) -> None:
    """Panels do not overlap, and read the data source that is chosen in the board."""
    panels = of["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert not [pair for pair in itertools.combinations(cells, 2) if pair[0] & pair[1]]
    assert all(0 <= x < 24 for cell in cells for x, _ in cell), "Grafana's grid has 24 columns"
    variables = {variable["name"]: variable for variable in of["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources = [target["datasource"] for panel in panels for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    used = re.findall(r"\$\{(\w+)\}|=~\"\$(\w+)\"", json.dumps(of).replace('\\"', '"'))
    assert {braced or plain for braced, plain in used} == set(variables)
