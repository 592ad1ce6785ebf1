"""Stage roll_out on a cluster that is scaled to zero. Prints as JSON what happened.

Usage: python growing_run.py GROUPS ROOT NODES, with a JSON file of node types. With two nodes, the second one comes in the
middle of the stage; when it works, the first one is lost and not replaced.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from autoscaled_cluster import ADDRESS, AutoscaledCluster, live_groups, node_types
from made_up_run import rows_of_run
from namespaces import in_namespaces
from placed_workers import PLACES, POLICY, job_variables, read_notes

from pipelines import roll_out
from pipelines.actors import sampling
from pipelines.recipes import sandbox, vgs
from pipelines.session import ray_session
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Engine, Recipe

BLOCK_ROWS, A_NODE = 16, 4
LIMIT_S = 120.0


def prepared(root: Path, nodes: int) -> Recipe:
    """A recipe whose roll-ins exist. Its roll-outs need the nodes of recipe vgs; an actor works on one block at a time."""
    base, engine = sandbox(), Engine(max_model_len=512, max_num_seqs=2)
    resources = replace(vgs().roll_out.resources, replicas=nodes * A_NODE)
    cuts = 1 if nodes == 1 else 6
    recipe = replace(
        base, root=str(root), roll_out=replace(base.roll_out, cuts=cuts, engine=engine, resources=resources)
    )
    rows = rows_of_run()
    for name, inputs in (("clean", ()), ("roll_in", ("clean",))):
        stage, table = open_stage(recipe, name, inputs), stage_table(recipe, name)
        assert stage is not None
        table.write_part(pa.Table.from_pylist(rows[name], schema=table.schema))
        stage.publish(table, in_this_process)
        stage.close(rows=len(rows[name]))
    return recipe


class Story(threading.Thread):
    """Grows the cluster when some samples are done, and lets the first node fail when the second one works."""

    def __init__(self, cluster: AutoscaledCluster, types: dict[str, object], places: Path, log: Path) -> None:
        super().__init__(daemon=True)
        self.cluster, self.types, self.places, self.log = cluster, types, places, log
        self.done_before_loss = 0

    def run(self) -> None:
        self._until(lambda: self.samples() >= 2 * BLOCK_ROWS)
        self.cluster.allow(node_types(self.types, dict.fromkeys(self.types, 2)))
        self._until(lambda: self.engines().total() >= 2 * A_NODE)
        at = self.samples()
        self._until(lambda: self.samples() >= at + 2 * A_NODE * BLOCK_ROWS)
        self.cluster.lose(min(self.engines()))
        self.done_before_loss = self.samples()

    def samples(self) -> int:
        """Finished calls of engines."""
        return len(self.log.read_text().splitlines())

    def engines(self) -> Counter[str]:
        """Engines that were started on each node. Ids of nodes are in the order of their start."""
        return Counter(note.node for note in read_notes(self.places) if note.kind == POLICY)

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.2)


def main() -> None:
    in_namespaces({})
    types, root, nodes = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), int(sys.argv[3])
    places, log = root / "places", root / "samples.txt"
    places.mkdir()
    log.touch()
    recipe = prepared(root, nodes)
    sampling.BLOCK_ROWS = BLOCK_ROWS
    variables = {PLACES: str(places), "VGS_DRILL_LOG": str(log), "VGS_DRILL_ROW_S": str(nodes)}
    story = Story(AutoscaledCluster(node_types(types, dict.fromkeys(types, 1)), variables), types, places, log)
    os.environ |= job_variables(ADDRESS)
    if nodes > 1:
        story.start()
    began = time.monotonic()
    with ray_session():
        roll_out.run(recipe)
        found = live_groups()
    seeds = log.read_text().splitlines()
    report = {
        "seconds": round(time.monotonic() - began, 1),
        "nodes": found,
        "held": sorted({(each.group, each.gpus) for each in read_notes(places) if each.kind == POLICY}),
        "engines": [count for _, count in sorted(story.engines().items())],
        "samples": len(set(seeds)),
        "before_loss": story.done_before_loss,
        "repeated": len(seeds) - len(set(seeds)),
        "rows": stage_table(recipe, "roll_out").read(["roll_out_id"])["roll_out_id"].to_pylist(),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
