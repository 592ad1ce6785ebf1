"""Stages on more nodes and with more rows: python bench/growth.py --nodes 1 2 4 8 --rows 1500 [--plot FILE].

Each node is a raylet on this machine. Engines, judges and labels sleep (bench/growth_workers.py), so that a node makes 50 rows a
second and needs little of the CPUs that all nodes share; commands, tables, Ray and its scheduler are real. Where the rate of a
node falls with the number of nodes or rows, the driver, the scheduler or the tables limit a run.

Out, as lines of JSON in `--results`: for each stage the rate of a node over the middle 80% of its rows, without start and
publishing; seconds in all; the peak memory and the CPU time of the command, in which Ray Data schedules; and the CPU time of the
cluster's control process. `--plot` draws all lines of the file. The rows of the table in docs/benchmarks.md are printed last.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import growth_workers
import psutil
import ray
from growth_workers import CPUS, FOLDER, MEAN_TOKENS, NODES, ROWS_PER_S
from ray.cluster_utils import Cluster
from scale import proportional_bytes, repeated
from synthetic import RESPONSES, publish_run, recipe_of, write_run

from pipelines import evaluate, label, roll_out, verify
from pipelines.session import _quiet_ray_data
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Beam, Label, Recipe, Resources
from vgs_ray.models import RANDOM

SEQUENCES = 64
STORE_BYTES = 100 * 2**20
BATCH_ROWS = 56
"""Of a task of verify and label, which is one problem: of the 1,024 of a run, a node here would get one or two."""
RUNS: dict[str, Callable[[Recipe], None]] = {
    "roll_out": roll_out.run, "verify": verify.run, "label": label.run, "evaluate": evaluate.run,
}  # fmt: skip
SEARCHES, ANSWERS_OF_A_SEARCH = 2, 4


@contextmanager
def cluster(nodes: int, folder: Path) -> Iterator[psutil.Process]:
    """A head without CPUs and some nodes, whose workers sleep; gives the control process."""
    os.environ |= {FOLDER: str(folder), NODES: str(nodes), "PYTHONPATH": os.pathsep.join(["bench", os.getcwd()])}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=CPUS, object_store_memory=STORE_BYTES)
        made.wait_for_nodes()
        hook = {"worker_process_setup_hook": "growth_workers.install"}
        ray.init(address=made.address, runtime_env=hook, log_to_driver=False, logging_level="ERROR")
        _quiet_ray_data()
        [control] = made.head_node.all_processes["gcs_server"]
        yield psutil.Process(control.process.pid)
    finally:
        ray.shutdown()
        made.shutdown()


def recipe_for(root: Path, nodes: int, rows: int) -> Recipe:
    """A recipe of the published run's shape that makes so many rows in each stage, and its inputs."""
    base = recipe_of(root, MEAN_TOKENS)
    engines, engine = Resources(replicas=nodes, num_gpus=0.0), replace(base.roll_out.engine, max_num_seqs=SEQUENCES)
    problems = rows // RESPONSES
    write_run(base, problems, MEAN_TOKENS, "roll_in")
    publish_run(base, "roll_in")
    benchmark = root / "problems.jsonl"
    count = max(1, rows // (SEARCHES * ANSWERS_OF_A_SEARCH))
    benchmark.write_text("".join(json.dumps({"problem": f"{at}?", "answer": "1"}) + "\n" for at in range(count)))
    return replace(
        base,
        roll_out=replace(base.roll_out, engine=engine, resources=engines),
        verify=replace(base.verify, workers=nodes),
        label=Label(kind="token_values", hopeless_share=1.0),
        evaluate=replace(
            base.evaluate, benchmarks=(str(benchmark),), limit=0, value_model=RANDOM, resources=engines, value_engine=engine,
            samples=ANSWERS_OF_A_SEARCH, budgets=(ANSWERS_OF_A_SEARCH,), policy_engine=engine,
            sampling=base.roll_out.sampling, beam=Beam(keep=2, branch=2, block=2 * MEAN_TOKENS), bootstrap=100,
        ),
    )  # fmt: skip


def rate(folder: Path) -> tuple[int, float]:
    """Rows that were made, and rows a second between the first and the last tenth of them; the notes are removed."""
    notes = []
    for file in folder.iterdir():
        notes += [line.split() for line in file.read_text().splitlines()]
        file.unlink()
    made, times = 0, []
    for at, rows in sorted((float(at), int(rows)) for at, rows in notes):
        made += rows
        times.append((at, made))
    middle = [each for each in times if 0.1 * made <= each[1] <= 0.9 * made]
    return made, (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])


def measure(stage: str, recipe: Recipe, nodes: int, folder: Path, control: psutil.Process) -> dict[str, Any]:
    """Run a stage in this process."""
    sizes, quiet = [0], io.StringIO()
    began, cpu, control_cpu = time.perf_counter(), time.process_time(), sum(control.cpu_times()[:2])
    with (
        repeated(lambda: sizes.append(proportional_bytes(os.getpid())), 0.5),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        RUNS[stage](recipe)
    seconds = time.perf_counter() - began
    rows, rows_per_s = rate(folder)
    return {
        "stage": stage, "nodes": nodes, "rows": rows, "committed": stage_table(recipe, stage).count_rows(),
        "rate_a_node": round(rows_per_s / nodes, 1), "seconds": round(seconds, 1), "peak_mib": max(sizes) >> 20,
        "driver_cpu": round((time.process_time() - cpu) / seconds, 3),
        "control_cpu": round((sum(control.cpu_times()[:2]) - control_cpu) / seconds, 3),
    }  # fmt: skip


def grow(nodes: int, rows: int, stages: list[str], results: Path) -> None:
    """Measure stages on a new cluster, in this process."""
    verify.BATCH_ROWS = label.BATCH_ROWS_WITH_TOKENS = BATCH_ROWS
    label.label_problems = growth_workers.label_slowly  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as root:
        notes = Path(root) / "notes"
        notes.mkdir()
        with cluster(nodes, notes) as control:
            recipe = recipe_for(Path(root), nodes, rows * nodes)
            for stage in stages:
                line = json.dumps({"rows_a_node": rows} | measure(stage, recipe, nodes, notes, control))
                print(line, flush=True)
                with results.open("a") as file:
                    file.write(f"{line}\n")


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table of docs/benchmarks.md."""
    fields = ["stage", "nodes", "rows", "rate_a_node", "seconds", "peak_mib", "driver_cpu", "control_cpu"]
    rows = [[f"{line[field]:,}" if field != "stage" else line[field] for field in fields] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def plot(lines: list[dict[str, Any]], path: str) -> None:
    """The rate of a node, and memory and CPU time of the driver, over the number of nodes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "rate_a_node": "rows a second and node", "peak_mib": "memory of the command, MiB",
        "driver_cpu": "CPUs of the command",
    }  # fmt: skip
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 3.4), layout="constrained")
    least = min(line["rows_a_node"] for line in lines)
    for (field, title), axis in zip(panels.items(), axes, strict=True):
        for color, stage in enumerate(RUNS):
            for rows in sorted({line["rows_a_node"] for line in lines}):
                points = sorted(
                    (e["nodes"], e[field]) for e in lines if (e["stage"], e["rows_a_node"]) == (stage, rows)
                )
                filled = f"C{color}" if rows == least else "white"
                style = {"color": f"C{color}", "marker": "o" if rows == least else "s", "markerfacecolor": filled}
                if points:
                    axis.plot(*zip(*points, strict=True), label=f"{stage}, {rows:,} rows a node", **style)
        axis.set(title=title, xlabel="nodes", xscale="log", ylim=(0, None))
        axis.set_xticks([1, 2, 4, 8], labels=["1", "2", "4", "8"])
        axis.minorticks_off()
    axes[0].axhline(ROWS_PER_S, color="gray", linewidth=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[1500], help="rows of each stage, for each node")
    parser.add_argument("--stages", nargs="+", choices=RUNS, default=list(RUNS), help="in their order")
    parser.add_argument("--results", type=Path, default=Path("growth.jsonl"))
    parser.add_argument("--plot", default="")
    options = parser.parse_args()
    cases = list(product(options.nodes, options.rows))
    for nodes, rows in cases:
        if len(cases) == 1:
            grow(nodes, rows, options.stages, options.results)
        else:  # in a process of its own, so that the memory of the command is that of this case
            fixed = ["--stages", *options.stages, "--results", str(options.results)]
            subprocess.run([sys.executable, __file__, "--nodes", str(nodes), "--rows", str(rows), *fixed], check=True)
    lines = [json.loads(line) for line in options.results.read_text().splitlines()]
    if len(cases) != 1:
        print(markdown(lines))
    if options.plot:
        plot(lines, options.plot)


if __name__ == "__main__":
    main()
