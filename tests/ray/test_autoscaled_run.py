"""Recipe vgs on the node groups of cluster.yaml and of the files for Kubernetes, which an autoscaler starts from nothing.

The nodes are raylets on this machine with numbers as GPUs, an eighth of those of the files, with an eighth of the actors. Engines
are scripted.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from autoscaled_cluster import node_types
from isolated import run_isolated
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

ROOT = Path(__file__).parents[2]
SHARE = 8
ANYWHERE = {
    "SortShuffleMap(partitions=8)", "SortShuffleReduce(partitions=8)", "_sample_block", "FooterReader.__init__",
    "FooterReader.read_footers", "PreemptionWatcher.__init__", "_reply", "_remove",
}  # fmt: skip
"""Tasks of Ray's own, for which it ignores labels, and two of ours for each live node: `_reply` checks that it shares the folder,
`_remove` deletes its copy of the tokens."""


def cluster_file() -> dict[str, Any]:
    """The groups of cluster.yaml: for CPUs, for policies and for the value model."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return workers(cluster)


def kubernetes_file() -> dict[str, Any]:
    """Those of job.yaml, as Ray's autoscaler reads them."""
    spec = yaml.safe_load((ROOT / "jobs/kubernetes/job.yaml").read_text())["spec"]["rayClusterSpec"]
    cluster = {"metadata": {"name": "vgs", "namespace": "default"}, "spec": spec}
    return workers(_derive_autoscaling_config_from_ray_cr(cluster))


def workers(config: dict[str, Any]) -> dict[str, Any]:
    """The node types of a configuration without the head's, and with an eighth of the nodes."""
    types = {name: group for name, group in config["available_node_types"].items() if name != config["head_node_type"]}
    return node_types(types, {name: math.ceil(group["max_workers"] / SHARE) for name, group in types.items()})


def run(program: str, groups: dict[str, Any], folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """The reports of a program of tests/support on a cluster with these groups."""
    file = folder / "groups.json"
    file.write_text(json.dumps(groups))
    output = run_isolated(f"tests/support/{program}", str(file), str(folder), *arguments, seconds=800)
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_roll_out_starts_on_a_cluster_that_is_scaled_to_zero(tmp_path: Path) -> None:
    [report] = run("growing_run.py", cluster_file(), tmp_path, "1")
    assert report["nodes"] == {"head": 1, "gpu_policy": 1}
    assert report["held"] == [["gpu_policy", 1]]
    assert 1 <= report["engines"][0] <= 4
    assert len(set(report["rows"])) == len(report["rows"]) == report["samples"] == 120


@pytest.mark.slow  # a minute
def test_replicas_grow_and_shrink_with_the_cluster_in_the_middle_of_a_stage(tmp_path: Path) -> None:
    """Of two nodes with four actors each, the second one comes in the middle; then the first one is lost and not replaced."""
    [report] = run("growing_run.py", cluster_file(), tmp_path, "2")
    assert report["nodes"] == {"head": 1, "gpu_policy": 1}
    assert len(set(report["rows"])) == len(report["rows"]) == report["samples"] == 720
    assert report["before_loss"] < report["samples"] * 0.75
    first, second = report["engines"]
    assert first == 4
    assert 4 < second <= 8  # in the end, the actors of the lost node get GPUs of those that have finished
    assert report["repeated"] <= 4 * 16  # the rows of the blocks on the lost node


@pytest.mark.slow  # four minutes each
@pytest.mark.timeout(900)
@pytest.mark.parametrize("groups", [cluster_file(), kubernetes_file()], ids=["cluster.yaml", "job.yaml"])
def test_each_stage_runs_on_its_group(groups: dict[str, Any], tmp_path: Path) -> None:
    cpu, policy, value = groups
    reports = {each["what"]: each for each in run("placed_run.py", groups, tmp_path)}
    for need in ("another type", "too many GPUs"):
        refused = reports.pop(need)
        assert "needs a node with" in refused["result"]
        assert refused["nodes"] == {"head": 1}

    found = {stage: report["nodes"] for stage, report in reports.items()}
    first, second, third = {"head": 1, cpu: 1}, {"head": 1, cpu: 1, policy: 2}, {"head": 1, cpu: 1, policy: 2, value: 1}
    assert found == {
        "clean": first, "roll_in": second, "roll_out": second, "verify": second, "label": second, "train": third,
        "evaluate": third, "serve": third,
    }  # fmt: skip
    held = {stage: report["held"] for stage, report in reports.items() if report["held"]}
    searching = held.pop("evaluate")  # its actors may be done before the last of them has started
    assert [each[:3] for each in searching] == [["policy", value, 1], ["value", value, 1]]
    assert held == {
        "roll_in": [["policy", policy, 1, 2], ["policy", policy, 2, 1], ["policy", policy, 4, 1]],
        "roll_out": [["policy", policy, 1, 8]],
        "train": [["trainer", value, 8, 8]],  # Ray Train shows all GPUs of a node to each of its workers
        "serve": [["policy", value, 1, 1], ["value", value, 1, 1]],
    }
    own = {"roll_in": policy, "roll_out": policy, "train": value, "evaluate": value}
    reports.pop("serve")  # Ray Serve has a proxy on each node
    for stage, report in reports.items():
        elsewhere = {group: set(names) - ANYWHERE for group, names in report["tasks"].items()}
        elsewhere.pop("head", None)  # it has no CPUs, so what runs there reserves none
        elsewhere.pop(own.get(stage, cpu), None)
        assert not any(elsewhere.values()), (stage, elsewhere)
