"""Faults of machines and networks, on nodes in network and PID namespaces without a common folder."""

from __future__ import annotations

import pytest
from isolated import run_isolated


def test_of_two_commands_one_publishes_although_the_network_of_the_other_was_cut() -> None:
    output = run_isolated("tests/support/cut_commands.py", seconds=200)
    assert "exit codes (1, 0)" in output
    assert output.endswith("the table is right\n")


@pytest.mark.slow  # ten minutes: three nodes, all stages up to roll_out, and four tries
@pytest.mark.timeout(1800)
def test_lost_nodes_networks_and_heads_lose_and_double_no_row(no_ray: None) -> None:
    faults = ["node lost", "network cut", "head lost", "spot notice"]
    output = run_isolated("bench/drills.py", "--stage", "roll_out", "--fault", *faults, seconds=1700)
    for fault in faults:
        assert f"| {fault} | `roll_out` |" in output


@pytest.mark.slow  # eight minutes: two whole runs with real engines
@pytest.mark.timeout(1800)
def test_three_nodes_give_the_tables_of_one_node(no_ray: None) -> None:
    assert "| evaluate |" in run_isolated("bench/three_nodes.py", seconds=1700)
