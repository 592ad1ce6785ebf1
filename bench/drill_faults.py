"""The faults of the drills, which happen to the cluster while a stage of a run is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from drill_cluster import Cluster
from namespaces import wait_for

STAGES = ["clean", "roll_in", "roll_out", "verify", "label", "train", "evaluate"]
LIMIT_S = 400.0
CUT_S = 60.0
LONG_CUT_S = 90.0
NOTICE_S = 30.0
FULL_S = 30.0
FILL = """
import numpy, ray, time
ray.init(address="{address}:6379", log_to_driver=False)
held = [ray.put(numpy.ones(20_000_000, "u1")) for _ in range(8)]
time.sleep({seconds})
"""


def lose_a_node(nodes: Cluster, stage: str, run: str) -> None:
    """A worker node is lost, and another one joins."""
    nodes.workers.pop(0).lose()
    nodes.join()


def cut_a_node(nodes: Cluster, stage: str, run: str) -> None:
    """The network of a worker node is cut for 60 seconds. A node that Ray has declared dead ends, and another one joins."""
    node = nodes.workers[0]
    node.cut()
    time.sleep(CUT_S)
    node.cut(off=False)


def lose_the_head(nodes: Cluster, stage: str, run: str) -> None:
    """The head is lost, and starts again with the same address. The old worker nodes end by themselves, and start again."""
    nodes.head.lose()
    nodes.head.cut(off=False)
    nodes.head.start()
    for node in nodes.workers:
        wait_for(node.has_ended, f"the end of {node.name}")
        node.start()
    nodes.heal()


def notice(nodes: Cluster, stage: str, run: str) -> None:
    """A worker node gets SIGTERM, another one joins, and the first one is lost 30 seconds later."""
    node = nodes.workers.pop(0)
    node.end()
    nodes.join()
    end = time.monotonic() + NOTICE_S
    while time.monotonic() < end and not node.has_ended():
        time.sleep(0.2)
    node.lose()


def cut_the_head(nodes: Cluster, stage: str, run: str) -> None:
    """The head's network is cut for 90 seconds. Meanwhile the same command is started elsewhere, and takes the lease over."""
    other = nodes.run_here(stage, run)
    wait_for(lambda: b"waiting for it to end" in nodes.output(run).read_bytes(), "the other command")
    nodes.head.cut()
    time.sleep(LONG_CUT_S)
    nodes.head.cut(off=False)
    if other.wait(LIMIT_S):
        raise RuntimeError(f"the other command failed:\n{nodes.output(run).read_text()[-3000:]}")


def fill_the_disk(nodes: Cluster, stage: str, run: str) -> None:
    """The disk of a worker node is full for 30 seconds."""
    node = nodes.workers[0]
    node.run("dd if=/dev/zero of=/tmp/full bs=1M 2>/dev/null || true")
    time.sleep(FULL_S)
    node.run("rm /tmp/full")


def fill_the_store(nodes: Cluster, stage: str, run: str) -> None:
    """Another program holds more objects in a worker node's object store than fit into it, for 30 seconds."""
    nodes.workers[0].run(f"python -c '{FILL.format(address=nodes.head.address, seconds=FULL_S)}' >/dev/null 2>&1")


class Fault(NamedTuple):
    """What happens to the cluster while a stage of a run is made, and in which stages."""

    strike: Callable[[Cluster, str, str], None]
    stages: list[str]


FAULTS = {
    "node lost": Fault(lose_a_node, STAGES),
    "network cut": Fault(cut_a_node, ["roll_out", "verify", "train"]),
    "head lost": Fault(lose_the_head, ["roll_out", "verify", "train"]),
    "spot notice": Fault(notice, ["roll_out", "train"]),
    "head cut": Fault(cut_the_head, ["roll_out"]),
    "disk full": Fault(fill_the_disk, ["roll_out", "train"]),
    "store full": Fault(fill_the_store, ["roll_out"]),
}
