"""Kill everything at random while a run generates and verifies: python bench/kills.py [--kills 20].

Workers (the engine is in them, or their child), raylets (a node each) and drivers of a small cluster on this machine get
SIGKILL at random moments; a command that ended is started again, as a person or a scheduler would. Out: a line for each
kill, then rows, lost and doubled ids; exit 1 where there are any.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from ray._private import ray_constants
from ray.cluster_utils import Cluster

from pipelines.cli import parse
from pipelines.roll_in import assign_generators
from pipelines.tables.stage_table import StageTable, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.ids import roll_in_id, roll_out_id

PAUSES = {"roll_in": 1.0, "roll_out": 1.0, "verify": 0.1}
"""Of the longest pause between two kills; engines take longer than a judge to start and to end."""
VICTIMS = ("worker", "raylet", "driver")
LIMIT_S = 300.0
"""A command that neither ends nor writes a row for so long hangs."""
MOST_STARTS = 40
NO_WORK = ("IDLE", "DashboardAgent", "RuntimeEnvAgent")  # a raylet ends with its agents: that is the victim `raylet`
CPUS = 2
"""Of a node, as Ray counts them: engines take fractions of one, and Ray Data's own tasks need a whole one beside them."""


def expected_ids(recipe: Recipe) -> dict[str, list[str]]:
    """What each table must hold in the end, each id once: known before anything is generated."""
    clean = stage_table(recipe, "clean")
    problems = clean.read([clean.key])[clean.key].to_pylist()
    places = assign_generators(recipe.roll_in.generators, recipe.roll_in.per_problem)
    roll_ins = [roll_in_id(problem, place.name, i) for problem in problems for i, place in enumerate(places)]
    roll_outs = [roll_out_id(roll_in, cut) for roll_in in roll_ins for cut in range(recipe.roll_out.cuts)]
    return {"roll_in": sorted(roll_ins), "roll_out": sorted(roll_outs), "verify": sorted(roll_outs)}


class Nodes:
    """A Ray cluster on this machine: a head that does no work, and two nodes that do and may be killed."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.cluster.add_node(num_cpus=CPUS) for _ in range(2)]
        self.cluster.wait_for_nodes()

    def command(self, stage: str, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
        environment = os.environ | {"RAY_ADDRESS": self.cluster.address}
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", f"pipelines.{stage}", *arguments],
                stdout=file, stderr=file, env=environment, start_new_session=True,
            )  # fmt: skip

    def kill(self, victim: str, driver: subprocess.Popen[bytes], draw: random.Random) -> bool:
        """SIGKILL one process of this part; False when there is none. A killed node is replaced by a new one."""
        if victim == "driver":
            os.killpg(driver.pid, signal.SIGKILL)
            return True
        node = draw.choice(self.workers)
        raylet = node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process
        if victim == "worker":
            return kill_one(busy_workers(raylet.pid), draw)
        raylet.kill()
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self.cluster.add_node(num_cpus=CPUS))
        return True


def busy_workers(raylet: int) -> list[psutil.Process]:
    """Processes of a node that run an actor or a task, with what they started."""
    found = []
    for process in psutil.Process(raylet).children(recursive=True):
        try:
            if process.name().startswith(("ray::", "VLLM::")) and not any(part in process.name() for part in NO_WORK):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_one(found: list[psutil.Process], draw: random.Random) -> bool:
    try:
        if found:
            draw.choice(found).kill()
    except psutil.NoSuchProcess:
        return False
    return bool(found)


def wait(driver: subprocess.Popen[bytes], out: StageTable, seconds: float) -> None:
    """Wait so long, or until the command ends.

    Raises:
        RuntimeError: the command hangs.
    """
    until, rows, moved = time.time() + seconds, -1, time.time()
    while driver.poll() is None and time.time() < until:
        time.sleep(0.5)
        if out.count_rows() != rows:
            rows, moved = out.count_rows(), time.time()
        if time.time() - moved > LIMIT_S:
            driver.kill()
            raise RuntimeError(f"no new row of {out.folder} in {LIMIT_S:.0f} s: the command hangs")


def run_stage(
    stage: str,
    recipe: Recipe,
    arguments: list[str],
    nodes: Nodes,
    draw: random.Random,
    kills: list[str],
    pause: float,
    log: Path,
) -> int:
    """Run one stage to its end through its kills; return how often it was started."""
    out, starts = stage_table(recipe, stage), 0
    while not (out.folder / "_stage.json").exists():
        driver, starts = nodes.command(stage, arguments, log), starts + 1
        while driver.poll() is None:
            wait(driver, out, draw.uniform(0.1, 1) * pause if kills else math.inf)
            if driver.poll() is None and kills and nodes.kill(kills[0], driver, draw):
                print(f"{stage:9} killed a {kills.pop(0):6} at {out.count_rows():6,} rows", flush=True)
        if starts > MOST_STARTS:
            raise RuntimeError(f"{stage} was started {starts} times and did not end:\n{log.read_text()[-3000:]}")
    return starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--problems", type=int, default=3000, help="raw problems of the sandbox")
    parser.add_argument("--pause", type=float, default=25.0, help="longest time between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as root:
        arguments = ["sandbox", "--root", root, "--clean.limit", str(options.problems)]
        recipe, log = parse("bench", arguments), Path(root) / "log"
        nodes = Nodes()
        if nodes.command("clean", arguments, log).wait():
            sys.exit(log.read_text())
        expected = expected_ids(recipe)
        print(f"{sum(map(len, expected.values())):,} rows expected in {len(expected)} tables", flush=True)
        victims = [VICTIMS[i % len(VICTIMS)] for i in range(options.kills)]
        draw.shuffle(victims)
        bad = done = 0
        for number, stage in enumerate(expected, 1):
            # What a short stage left over goes to the next one.
            kills = victims[done : options.kills * number // len(expected)]
            planned, began = len(kills), time.time()
            starts = run_stage(stage, recipe, arguments, nodes, draw, kills, PAUSES[stage] * options.pause, log)
            out, done = stage_table(recipe, stage), done + planned - len(kills)
            found = Counter(out.read([out.key])[out.key].to_pylist())
            lost, doubled = len(set(expected[stage]) - set(found)), sum(count > 1 for count in found.values())
            foreign = len(set(found) - set(expected[stage]))
            bad += lost + doubled + foreign
            print(
                f"{stage:9} {planned - len(kills)} kills, {starts} starts, {time.time() - began:.0f} s: "
                f"{out.count_rows():,} rows, {lost} lost, {doubled} doubled, {foreign} that nobody asked for",
                flush=True,
            )
        print(f"{done} of {options.kills} kills, {bad} rows are wrong", flush=True)
        nodes.cluster.shutdown()
        sys.exit(bool(bad))


if __name__ == "__main__":
    main()
