"""Whether a recipe fits a cluster: where each stage runs, what has no node, what stays idle, hours and dollars.

In: a recipe, its estimated costs, a cluster file. Out: a table and lines of text; nothing is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tabulate import tabulate

from pipelines.planning.cluster_file import Cluster
from pipelines.planning.demands import ConfigOf, demands_of, used_generators
from vgs_ray.config import Recipe
from vgs_ray.errors import option_name
from vgs_ray.evaluate.accelerators import ACCELERATORS, LABEL
from vgs_ray.evaluate.placement import Demand, Group, Misfit, Placement, candidates, place
from vgs_ray.search.model_size import size_from_config


class StageFit(NamedTuple):
    """One stage on the cluster.

    Attributes:
        stage: its name.
        demands: what it asks for.
        placement: where that is.
        hours: of wall-clock time; None if unknown.
        dollars: of its nodes for these hours; None if unknown.
    """

    stage: str
    demands: list[Demand]
    placement: Placement
    hours: float | None
    dollars: float | None


def fit(recipe: Recipe, gpu_hours: dict[str, float | None], cluster: Cluster, config_of: ConfigOf) -> list[StageFit]:
    """Place every stage and the endpoint, one after another.

    Args:
        recipe: the configuration.
        gpu_hours: of each stage, on GPUs of `plan.peak_tflops`; None if unknown.
        cluster: the groups.
        config_of: gives the values of a model's config.json.
    """
    fits = []
    for stage in (*recipe.stages, "serve"):
        demands = demands_of(recipe, stage, config_of, cluster.groups)
        placement = place(cluster.groups, demands, cluster.max_nodes)
        work = gpu_hours.get(stage)
        shares = _shares(recipe, stage, demands, config_of)
        hours = None if work is None else _hours(work * recipe.plan.peak_tflops, shares, placement, cluster.groups)
        fits.append(StageFit(stage, demands, placement, hours, _dollars(hours, placement, cluster.prices)))
    return fits


def _shares(recipe: Recipe, stage: str, demands: Sequence[Demand], config_of: ConfigOf) -> dict[Demand, float]:
    """The share of the stage's work that each demand with GPUs does: that of the generators is in proportion to their size."""
    if stage != "roll_in":
        return {demands[0]: 1.0}
    counts, generators = used_generators(recipe), recipe.roll_in.generators
    work = {
        index: count * size_from_config(config_of(generators[index].model)).params for index, count in counts.items()
    }
    return dict(zip(demands, (each / sum(work.values()) for each in work.values()), strict=False))


def _hours(work: float, shares: dict[Demand, float], placement: Placement, groups: Sequence[Group]) -> float | None:
    """Hours until the slowest demand is done; `work` in hours times TFLOP/s. None if nothing or too little is known."""
    peaks = {
        group.name: ACCELERATORS[name].tflops for group in groups if (name := group.labels.get(LABEL)) in ACCELERATORS
    }
    slowest = 0.0
    for demand, share in shares.items():
        on = [placed for placed in placement.placed if placed.demand == demand]
        if not on or any(placed.group not in peaks for placed in on):
            return None
        slowest = max(slowest, share * work / sum(each.number * demand.gpus * peaks[each.group] for each in on))
    return slowest


def _dollars(hours: float | None, placement: Placement, prices: dict[str, float]) -> float | None:
    if hours is None or not placement.nodes.keys() <= prices.keys():
        return None
    return hours * sum(count * prices[name] for name, count in placement.nodes.items())


def fit_table(fits: Sequence[StageFit], groups: Sequence[Group]) -> str:
    """A row for each stage and group that it uses."""
    by_name = {group.name: group for group in groups}
    rows = [["stage", "group", "nodes", "GPUs", "idle", "hours", "dollars"]]
    for each in fits:
        for name, nodes in each.placement.nodes.items():
            used = sum(placed.number * placed.demand.gpus for placed in each.placement.placed if placed.group == name)
            total = nodes * by_name[name].gpus
            cost = (_text(each.hours), _text(each.dollars))
            rows.append([each.stage, name, f"{nodes}", f"{used:g}", f"{total - used:g}", *cost])
    return tabulate(rows, tablefmt="plain", colalign=["left", "left", *["right"] * 5], disable_numparse=True)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def misfit_lines(fits: Sequence[StageFit]) -> list[str]:
    """What has no node: the value, the rule and the remedy."""
    return [_misfit(misfit) for each in fits for misfit in each.placement.misfits]


def _misfit(misfit: Misfit) -> str:
    demand, groups = misfit.demand, misfit.groups
    names = ", ".join(group.name for group in groups) or "none"
    if misfit.rule == "labels":
        return (
            f"{demand.size_field}: no group has the labels {' '.join(demand.nodes)} (groups: {names}); Ray starts it only on "
            "nodes with all of them: add labels to a group, or ask for others in the recipe"
        )
    if misfit.rule == "size":
        return (
            f"{demand.size_field}: {demand.cpus:g} CPUs and {demand.gpus:g} GPUs are more than one node of {names} has; an actor "
            "and the engine in it can't be on two nodes: lower them in the recipe, or use larger nodes"
        )
    if misfit.rule == "memory":
        have = f"those of {names} have at most {max(group.gpu_gib for group in groups):.0f}"
        if demand.size_field == "train":
            return (
                f"train: weights, gradients, optimizer and activations need GPUs with about {demand.gpu_gib:.0f} GiB, and "
                f"{have}: raise --train.shard-size, set --train.reshard, lower --train.micro-tokens, or use larger ones"
            )
        return (
            f"{demand.size_field}: the weights and the cache of the engine (plan.sequences) need GPUs with {demand.gpu_gib:.0f} "
            f"GiB, and {have}: split the engine over more GPUs (tensor_parallel_size, num_gpus), or use larger ones"
        )
    placed = demand.number - misfit.missing
    remedy = f"lower {option_name(demand.number_field)}, or " if demand.number_field else ""
    return (
        f"{demand.size_field}: {placed} of {demand.number} fit on the nodes of {names}; the others would wait: {remedy}raise "
        "max_workers of the group and of the cluster"
    )


def note_lines(fits: Sequence[StageFit], groups: Sequence[Group]) -> Iterator[str]:
    """What no stage uses, and what Ray may place on several groups."""
    for group in groups:
        most = max((each.placement.nodes.get(group.name, 0) for each in fits), default=0)
        if most < group.nodes:
            yield f"{group.name}: at most {most} of {group.nodes} nodes are used at a time"
    choices: dict[str, list[str]] = {}
    for demand in dict.fromkeys(demand for each in fits for demand in each.demands):
        rule, fitting = candidates(groups, demand)
        if rule == "nodes" and len(fitting) > 1:
            choices.setdefault(", ".join(group.name for group in fitting), []).append(demand.size_field)
    for names, fields in choices.items():
        yield f"Ray chooses among {names} for {', '.join(fields)}; nodes and cpu_nodes restrict it"
