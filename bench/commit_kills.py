"""Kill the processes of a small stage at the failpoints of its commit path: python bench/commit_kills.py [--kills 500].

A scripted engine makes the rows; everything else is what a stage runs: it is opened, workers commit blocks of rows, and the table
is published. Each run is killed several times and started again, as a person or a scheduler would. Some workers are stopped
instead, believed dead, and continue later, when others have made their rows. In the end the table must have the ids and bytes
of an uninterrupted run. Out: runs, kills by point, rows lost and doubled, and rows that were generated again. A failing run
prints its seed; `--seed SEED --kills 1` replays it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forked import COUNT_ONLY, Child, call
from scripted_stage import ROWS, close, committed, open_, verdict, work

from pipelines.recipes import sandbox
from pipelines.tables.stage_table import StageTable
from vgs_ray.config import Recipe
from vgs_ray.data import failpoints
from vgs_ray.data.storage import storage_path

BLOCK, WORKERS = 8, 2
ZOMBIES = 0.25
"""Share of the workers that are stopped instead of killed, and continue later."""
CHANCES = {"open": 0.2, "work": 0.6, "close": 0.5}
"""That a process of a phase is killed."""
MOST_STARTS = 30


@dataclass
class Run:
    """One run of the stage, which is killed several times."""

    recipe: Recipe
    draw: random.Random
    points: dict[str, Counter[str]]
    generated: Path
    kills_left: int
    killed: Counter[str] = field(default_factory=Counter)
    zombies: list[Child] = field(default_factory=list)
    learning: bool = False

    def start(self, phase: str, function: Callable[..., Any], *arguments: Any) -> tuple[Child, str]:
        """Start a process of a phase, which may be killed or stopped at a point."""
        passings, point = self.points[phase], ""
        if self.kills_left > 0 and passings and self.draw.random() < CHANCES[phase]:
            point = self.draw.choice(sorted(passings))
            action = "stop" if phase == "work" and self.draw.random() < ZOMBIES else "kill"
            return Child(f"{point}={action}@{self.draw.randint(1, passings[point])}", function, *arguments), point
        return Child(COUNT_ONLY, function, *arguments), point

    def end(self, phase: str, child: Child, point: str) -> tuple[str, Any]:
        """How a process ended, and its result if it is done."""
        end = child.wait()
        if end == "failed":
            raise RuntimeError(f"phase {phase} failed")
        if end in ("killed", "stopped"):
            self.killed[f"{phase} {point} {end}"] += 1
            self.kills_left -= 1
        if end == "stopped":
            self.zombies.append(child)
        if end != "done":
            return end, None
        result, passed = child.result()
        if self.learning:
            self.points[phase] |= Counter({name: count for name, count in passed.items() if name != failpoints.ANY})
        return end, result

    def wake(self, chance: float) -> list[Child]:
        """Let some stopped workers continue, beside what comes next."""
        woken = [zombie for zombie in self.zombies if self.draw.random() < chance]
        for zombie in woken:
            os.kill(zombie.pid, signal.SIGCONT)
            self.zombies.remove(zombie)
        return woken

    def attempt(self) -> bool:
        """One start of the command; False if it was killed."""
        end, opened = self.end("open", *self.start("open", open_, self.recipe, self.draw.choice([BLOCK, 5, 3])))
        if end != "done" or opened is None:
            return end == "done"
        stage, table, blocks = opened
        woken = self.wake(0.3)
        whole = self.run_workers(table, blocks)
        woken += self.wake(0.3) if whole else []
        end, _ = self.end("close", *self.start("close", close, stage, table)) if whole else ("killed", None)
        for zombie in woken:
            zombie.wait()
        return end == "done"

    def run_workers(self, table: StageTable, blocks: list[list[str]]) -> bool:
        """Run all blocks; False if the driver died. A worker that dies is replaced, or the driver dies with it."""
        commit_s = self.draw.choice([0.0, 0.004])
        todo = [part for index in range(WORKERS) if (part := blocks[index::WORKERS])]
        running = [(part, self.start("work", work, table, part, self.generated, commit_s)) for part in todo]
        whole = True
        while running:
            part, (child, point) = running.pop(0)
            end, _ = self.end("work", child, point)
            if end == "done":
                continue
            if self.draw.random() < 0.5:
                running.append((part, self.start("work", work, table, part, self.generated, commit_s)))
                continue
            whole = False
            for _, (other, _) in running:
                other.kill()
            running = []
        return whole

    def finish(self) -> str:
        """Start the command until it is done; what is wrong then."""
        before: set[str] = set()
        for _ in range(MOST_STARTS):
            if self.attempt():
                break
            now = call(committed, self.recipe)
            if before - now:
                return f"committed rows are gone: {sorted(before - now)}"
            before = now
        for zombie in self.wake(1.0):
            zombie.wait()
        if call(open_, self.recipe, BLOCK) is not None:
            return "the stage is not complete"
        return str(call(verdict, self.recipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", default="", help="folder or URL; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(run_all(options.kills, options.seed, options.root or temporary, Path(temporary) / "generated"))


def run_all(kills: int, seed: int, root: str, generated: Path) -> int:
    points: dict[str, Counter[str]] = {"open": Counter(), "work": Counter(), "close": Counter()}
    killed: Counter[str] = Counter()
    runs = bad = 0
    while killed.total() < kills:
        draw = random.Random(seed + runs - 1)
        recipe = replace(sandbox(), root=str(storage_path(root) / f"run-{runs}"))
        run = Run(recipe, draw, points, generated, kills_left=runs and draw.randint(1, 8), learning=not runs)
        try:
            problem = run.finish()
        except RuntimeError as error:
            problem = str(error)
        if problem:
            bad += 1
            print(f"seed {seed + runs - 1}: {problem}; killed {dict(run.killed)}", flush=True)
        killed += run.killed
        runs += 1
        if not runs - 1:
            print(f"points: { ({phase: dict(each) for phase, each in points.items()}) }", flush=True)
    rows = len(generated.read_text().splitlines())
    for name, count in sorted(killed.items()):
        print(f"{count:5} {name}")
    print(
        f"{killed.total()} kills in {runs - 1} runs at {len({name.split()[1] for name in killed})} points: {bad} runs are wrong; "
        f"{rows / (runs * ROWS) - 1:.0%} of the rows were generated again"
    )
    return int(bad > 0)


if __name__ == "__main__":
    main()
