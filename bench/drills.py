"""Faults of machines and networks while a job runs on three nodes without a common folder: bench/drills.py [--fault NAME].

The nodes are network, PID and mount namespaces with a `ray start` in each, and the run is on an S3 server (moto's). Each try
submits one stage of recipe `sandbox` by jobs/submit.sh, with scripted engines, applies one fault when a part of the rows is
committed, repeats the command if it failed, and compares the table with that of a run without faults. Needs Linux and root. Out:
a line for each try, and the table of docs/reliability.md over all tries of the folder. `--tries 0` prints the table only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path += [str(Path(__file__).parents[1] / "tests/support")]

from drill_cluster import Cluster, cluster
from drill_faults import FAULTS, LIMIT_S, STAGES
from namespaces import in_namespaces, wait_for

from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.storage import list_files
from vgs_ray.value.training.metrics_log import METRICS_LOG, read_metrics

UNDISTURBED = "undisturbed"
MOST_STARTS = 5
SHORT = ("clean", "label")
"""Stages that make their rows in seconds. The fault comes when they begin."""
DIFFERENT = ["seconds"]
"""Columns that differ from run to run."""


class Try(NamedTuple):
    """What one try gave. Rows of `train` are steps."""

    fault: str
    stage: str
    expected: int
    found: int
    doubled: int
    wrong: int
    starts: int
    seconds: float
    redone: float

    @property
    def is_right(self) -> bool:
        return self.found == self.expected and not self.doubled and not self.wrong


def rows_of(recipe: Recipe, stage: str) -> dict[str, list[Any]]:
    """The rows of a finished stage, as digests by id; of `train`, the loss of each step, which tells the order of the data."""
    if stage == "train":
        return {str(row["step"]): [row["loss"]] for row in read_metrics(recipe.stage_folder(stage) / METRICS_LOG)}
    table, found = stage_table(recipe, stage), dict[str, list[Any]]()
    rows = table.read().sort_by(table.key)
    for row in rows.drop_columns([name for name in DIFFERENT if name in rows.column_names]).to_pylist():
        found.setdefault(row[table.key], []).append(hashlib.blake2b(repr(row).encode()).hexdigest())
    return found


def count_wrong(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> int:
    """Rows that are not those of the run without faults. Losses depend a little on the number of workers."""

    def is_same(value: Any, other: Any) -> bool:
        return math.isclose(value, other, abs_tol=1e-4) if isinstance(value, float) else value == other

    return sum(row not in expected or not is_same(values[0], expected[row][0]) for row, values in found.items())


def progress(recipe: Recipe, stage: str) -> int:
    """Rows that are committed, or steps that are logged; 1 at least if the stage has begun."""
    folder = recipe.stage_folder(stage)
    if stage == "train":
        return len(read_metrics(folder / METRICS_LOG))
    begun = (folder / "_started.json").exists()
    return max(int(begun), stage_table(recipe, stage).count_rows())


class Drills:
    """Runs the tries on one cluster."""

    def __init__(self, nodes: Cluster, folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.expected: dict[str, dict[str, list[Any]]] = {}
        self.seconds: dict[str, float] = {}

    def prepare(self, last: str) -> None:
        """Run the stages without faults, up to a stage."""
        recipe = self.nodes.recipe(UNDISTURBED)
        kept = self.folder / "seconds.json"
        self.seconds = json.loads(kept.read_text()) if kept.exists() else {}
        for stage in STAGES[: STAGES.index(last) + 1]:
            if stage not in self.seconds:
                for name in list_files(recipe.stage_folder(stage)):  # of an interrupted call
                    (recipe.stage_folder(stage) / name).unlink()
                began = time.monotonic()
                self.finish(stage, UNDISTURBED)
                self.seconds[stage] = time.monotonic() - began
                kept.write_text(json.dumps(self.seconds))
            self.expected[stage] = rows_of(recipe, stage)
            print(
                f"{UNDISTURBED:12} {stage:9} {len(self.expected[stage]):6,} rows in {self.seconds[stage]:.0f} s",
                flush=True,
            )

    def finish(self, stage: str, run: str, strike: Callable[[], None] | None = None) -> int:
        """Submit a stage until it is finished; `strike` is called once, while it runs. Returns how often it was submitted."""
        for start in range(1, MOST_STARTS + 1):
            job = self.nodes.submit(stage, run)
            if strike:
                strike()
                strike = None
            if not job.wait(LIMIT_S):
                return start
        raise RuntimeError(
            f"{stage} of {run} was submitted {MOST_STARTS} times and did not end:\n{self.nodes.output(run).read_text()[-3000:]}"
        )

    def attempt(self, name: str, stage: str) -> Try:
        """One try."""
        run = f"{name}-{stage}-{secrets.token_hex(3)}".replace(" ", "-").replace("_", "-")
        recipe = self.nodes.recipe(run)
        self.nodes.copy_stages(self.nodes.recipe(UNDISTURBED), recipe, STAGES[: STAGES.index(stage)])
        self.nodes.rows_made.unlink(missing_ok=True)
        expected = self.expected[stage]

        def strike() -> None:
            enough = 1 if stage in SHORT else len(expected) // 4
            wait_for(lambda: progress(recipe, stage) >= enough, f"{enough} rows of {run}", LIMIT_S)
            FAULTS[name].strike(self.nodes, stage, run)

        began = time.monotonic()
        starts = self.finish(stage, run, strike)
        seconds = time.monotonic() - began
        found = rows_of(recipe, stage)
        self.nodes.heal()
        return Try(
            fault=name, stage=stage, expected=len(expected), found=len(found),
            doubled=sum(len(each) > 1 for each in found.values()),
            wrong=count_wrong(found, expected),
            starts=starts, seconds=seconds - self.seconds[stage], redone=self.redone(recipe, stage),
        )  # fmt: skip

    def redone(self, recipe: Recipe, stage: str) -> float:
        """Share of the steps, the engines' calls or the judged rows that were done again."""
        if stage == "train":
            lines = (recipe.stage_folder(stage) / METRICS_LOG).read_text().splitlines()
            return len(lines) / len(self.expected[stage]) - 1
        made = Counter(self.nodes.rows_made.read_text().split() if self.nodes.rows_made.exists() else [])
        return made.total() / len(made) - 1 if made else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="keep tables and tries here, so that the next call makes no run without faults"
    )
    options = parser.parse_args()
    plan = [(name, stage) for name in options.fault for stage in FAULTS[name].stages if stage in options.stage]
    if not plan:
        parser.error("none of these faults happens in these stages")
    # Ray reads these when it is imported.
    in_namespaces({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    with tempfile.TemporaryDirectory(dir="/run") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "tries.jsonl"
        if options.tries:
            run_all(plan * options.tries, folder, kept)
        lines = kept.read_text().splitlines() if kept.exists() else []
        tries = [Try(**json.loads(line)) for line in lines]
    print(markdown(tries))
    sys.exit(not all(each.is_right for each in tries))


def run_all(plan: list[tuple[str, str]], folder: Path, kept: Path) -> None:
    """Try each fault in its stage, and append what came out to a file."""
    with cluster(folder) as nodes:
        drills = Drills(nodes, folder)
        drills.prepare(max((stage for _, stage in plan), key=STAGES.index))
        for name, stage in plan:
            done = drills.attempt(name, stage)
            print(*done, flush=True)
            with kept.open("a") as file:
                file.write(f"{json.dumps(done._asdict())}\n")


def markdown(tries: list[Try]) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| fault | stage | tries | rows expected | found | doubled or other | submitted | seconds longer | done again |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    tried = {(each.fault, each.stage) for each in tries}
    for fault, stage in sorted(tried, key=lambda pair: (list(FAULTS).index(pair[0]), STAGES.index(pair[1]))):
        some = [each for each in tries if (each.fault, each.stage) == (fault, stage)]
        expected, found = sum(each.expected for each in some), sum(each.found for each in some)
        wrong, redone = sum(each.doubled + each.wrong for each in some), median(each.redone for each in some)
        lines.append(
            f"| {fault} | `{stage}` | {len(some)} | {expected:,} | {found:,} | {wrong} | {max(each.starts for each in some)} | "
            f"{median(each.seconds for each in some):.0f} | {redone:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
