"""The sandbox on three nodes without a common folder against one node: bench/three_nodes.py [--folder FOLDER].

`jobs/submit.sh run sandbox` runs all stages with their real engines on a head and two worker nodes in namespaces, with the root
on an S3 server (moto's). Afterwards the same command runs without a cluster. Needs Linux and root. Out: the rows of each stage in
both runs, and how many differ. The exit code is 1 if any does. Of a search, the answers and their outcomes are compared: values
depend a little on the number of workers that trained.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parents[1] / "tests/support")]

from drill_cluster import Cluster, cluster
from drill_faults import STAGES
from drills import count_wrong, rows_of
from namespaces import in_namespaces
from tabulate import tabulate

from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe

THREE, ONE = "three-nodes", "one-node"
LIMIT_S = 1500.0


def run_both(nodes: Cluster) -> None:
    """Run all stages on the cluster, then on this machine alone."""
    for name, start in ((THREE, nodes.submit), (ONE, nodes.run_here)):
        began = time.monotonic()
        if start("run", name).wait(LIMIT_S):
            raise RuntimeError(f"the run on {name} failed:\n{nodes.output(name).read_text()[-5000:]}")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def answers_of(recipe: Recipe) -> dict[str, list[Any]]:
    """The answers of each search and their outcomes, by its id."""
    rows = stage_table(recipe, "evaluate").read(["search_id", "leaves"]).to_pylist()
    leaves = {row["search_id"]: json.loads(row["leaves"]) for row in rows}
    return {name: [sorted((str(leaf["answer"]), leaf["outcome"]) for leaf in found)] for name, found in leaves.items()}


def compared(nodes: Cluster) -> list[tuple[str, int, int, int]]:
    """For each stage: rows on three nodes, rows on one node, and rows of the first that differ or are double."""
    lines = []
    for stage in STAGES:
        recipes = [nodes.recipe(name) for name in (THREE, ONE)]
        found, expected = (answers_of(each) if stage == "evaluate" else rows_of(each, stage) for each in recipes)
        double = sum(len(rows) > 1 for rows in found.values())
        lines.append((stage, len(found), len(expected), count_wrong(found, expected) + double))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the tables and the output here")
    options = parser.parse_args()
    # Ray reads these when it is imported.
    in_namespaces({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    with tempfile.TemporaryDirectory(dir="/run") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with cluster(folder, scripted=False) as nodes:
            run_both(nodes)
            lines = compared(nodes)
    print(tabulate(lines, ["stage", "three nodes", "one node", "different"], "github", intfmt=","))
    sys.exit(any(found != expected or different for _, found, expected, different in lines))


if __name__ == "__main__":
    main()
