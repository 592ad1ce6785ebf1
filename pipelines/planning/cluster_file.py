"""The groups of nodes in a file of Ray's cluster launcher, such as cluster.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vgs_ray.config import PlanAssumptions
from vgs_ray.errors import UserError
from vgs_ray.evaluate.accelerators import ACCELERATORS, LABEL, UNKNOWN
from vgs_ray.evaluate.placement import Group


class Cluster(NamedTuple):
    """What a file says.

    Attributes:
        groups: of workers. The head runs no tasks.
        max_nodes: maximum number of workers.
        prices: dollars an hour of one node, of the groups whose price is known.
    """

    groups: list[Group]
    max_nodes: int
    prices: dict[str, float]


def read_cluster(path: str, assumed: PlanAssumptions) -> Cluster:
    """Read a file.

    Raises:
        UserError: it can't be read, or is not a file of the cluster launcher; or a price is no number.
    """
    listed = _prices(assumed.prices)
    try:
        content = yaml.safe_load(Path(path).read_text())
        types, head = dict(content["available_node_types"]), content["head_node_type"]
        most = int(content.get("max_workers", 2))
        groups = [_group(name, each, most) for name, each in types.items() if name != head]
        known = {name: _price(each, listed, assumed.spot_share) for name, each in types.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"cluster is {path!r}; it must be a file of Ray's cluster launcher with available_node_types, of which each has "
            f"resources and node_config ({type(error).__name__}: {error}): pass another --cluster"
        ) from error
    return Cluster(groups, most, {name: price for name, price in known.items() if price is not None})


def _group(name: str, node_type: dict[str, Any], most: int) -> Group:
    resources, labels = node_type["resources"], dict(node_type.get("labels") or {})
    memory = ACCELERATORS.get(labels.get(LABEL, ""), UNKNOWN).gib
    nodes = int(node_type.get("max_workers", most))
    return Group(name, nodes, float(resources.get("CPU", 0)), int(resources.get("GPU", 0)), memory, labels)


def _prices(listed: tuple[str, ...]) -> dict[str, float]:
    try:
        return {name: float(price) for name, price in (each.split("=") for each in listed)}
    except ValueError:
        raise UserError(
            f"plan.prices is {' '.join(listed)}; it must be TYPE=DOLLARS items, such as p5.48xlarge=55.04: pass another "
            "--plan.prices"
        ) from None


def _price(node_type: dict[str, Any], prices: dict[str, float], spot_share: float) -> float | None:
    """Dollars an hour; None if the instance type has no price."""
    config = node_type["node_config"]
    price = prices.get(config.get("InstanceType", ""))
    spot = (config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
    return price and price * (spot_share if spot else 1.0)
