"""Placement of demands on groups of nodes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.config.node_labels import matches
from vgs_ray.evaluate.placement import Demand, Group, candidates, place

LABELS = st.sampled_from(["L40S", "H100"])
groups = st.lists(
    st.builds(
        Group,
        name=st.sampled_from("abcd"),
        nodes=st.integers(0, 5),
        cpus=st.integers(0, 32),
        gpus=st.integers(0, 8),
        gpu_gib=st.sampled_from([0.0, 45.0, 80.0]),
        labels=st.builds(lambda name: {"gpu": name}, LABELS),
    ),
    max_size=4,
    unique_by=lambda group: group.name,
)
demands = st.lists(
    st.builds(
        Demand,
        size_field=st.just("x"),
        number_field=st.just("y"),
        number=st.integers(1, 12),
        cpus=st.sampled_from([0.25, 1.0, 3.0]),
        gpus=st.sampled_from([0.0, 0.25, 0.5, 0.6, 1.0, 2.0, 4.0]),
        nodes=st.sampled_from([(), ("gpu=H100",), ("gpu=!H100",)]),
        gpu_gib=st.sampled_from([0.0, 50.0]),
    ),
    max_size=4,
)


@given(groups, demands, st.integers(1, 12))
def test_every_member_has_one_node_that_fits_or_is_reported(
    groups: list[Group], demands: list[Demand], max_nodes: int
) -> None:
    result = place(groups, demands, max_nodes)
    by_name = {group.name: group for group in groups}
    assert sum(each.number for each in demands) == (
        sum(each.number for each in result.placed) + sum(misfit.missing for misfit in result.misfits)
    )
    assert sum(result.nodes.values()) <= max_nodes
    assert all(count <= by_name[name].nodes for name, count in result.nodes.items())
    used: Counter[tuple[str, str]] = Counter()
    for demand, name, number in result.placed:
        group = by_name[name]
        assert matches(group.labels, demand.nodes)
        assert group.gpu_gib >= demand.gpu_gib or not group.gpu_gib
        used[name, "cpu"] += number * demand.cpus
        used[name, "gpu"] += number * demand.gpus
    for name, count in result.nodes.items():
        assert used[name, "cpu"] <= count * by_name[name].cpus + 1e-6
        assert used[name, "gpu"] <= count * by_name[name].gpus + 1e-6


@given(groups, demands)
def test_a_misfit_is_true(groups: list[Group], demands: list[Demand]) -> None:
    for demand in demands:
        alone = place(groups, [demand])
        rule, fitting = candidates(groups, demand)
        if rule != "nodes":
            assert [(each.missing, each.rule) for each in alone.misfits] == [(demand.number, rule)]
        elif any(group.nodes for group in fitting):
            assert alone.placed
        assert len(alone.misfits) <= 1


def test_engines_on_many_gpus_get_whole_nodes_before_others_share_them() -> None:
    group = Group("a", 2, 16, 4)
    small, large = Demand("s", "s", 4, 1, 1), Demand("l", "l", 1, 1, 4)
    assert not place([group], [small, large]).misfits


def test_parts_of_a_gpu_share_it_only_if_they_fit() -> None:
    group = Group("a", 1, 16, 2)
    assert not place([group], [Demand("h", "h", 4, 1, 0.5)]).misfits
    assert place([group], [Demand("h", "h", 3, 1, 0.6)]).misfits[0].missing == 1


def test_work_without_gpus_leaves_gpu_nodes_free() -> None:
    gpu, cpu = Group("gpu", 1, 64, 8), Group("cpu", 1, 4)
    result = place([gpu, cpu], [Demand("c", "c", 6, 1)])
    assert [(each.group, each.number) for each in result.placed] == [("cpu", 4), ("gpu", 2)]


@pytest.mark.parametrize(
    ("demand", "rule"),
    [
        (Demand("x", "y", 1, 1, 1, ("gpu=B200",)), "labels"),
        (Demand("x", "y", 1, 1, 8, ("gpu=L40S",)), "size"),
        (Demand("x", "y", 1, 64, 1), "size"),
        (Demand("x", "y", 1, 1, 1, ("gpu=L40S",), 60.0), "memory"),
        (Demand("x", "y", 99, 1, 4), "nodes"),
    ],
)
def test_wrong_clusters_name_the_rule(demand: Demand, rule: str) -> None:
    cluster = [Group("l", 2, 48, 4, 45.0, {"gpu": "L40S"}), Group("h", 2, 48, 8, 80.0, {"gpu": "H100"})]
    assert [each.rule for each in place(cluster, [demand]).misfits] == [rule]
