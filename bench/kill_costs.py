"""Tokens that are generated again after kills: python bench/kill_costs.py [--every 180] [--actors 16].

Actors make blocks of rows with a scripted engine, whose sequences take the time of real ones, divided by `--scale`. Every so
many seconds one actor gets SIGKILL and is started again, or nothing if it has ended; with `--victim command` all of them at once.
What an actor had generated and not committed is generated again: the open sequences, and the finished ones of the last seconds.
Out: that share of all tokens, and exit status 1 if it is above `--limit`. Seconds are those of the real run.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import sys
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from forked import COUNT_ONLY, Child
from scripted_stage import row_of

from pipelines.actors.block_runner import BlockRunner, Row
from pipelines.actors.sampling import BLOCK_ROWS, COMMIT_S
from pipelines.tables.stage_table import StageTable
from vgs_ray.data.storage import storage_path

MEAN_TOKENS, MAX_TOKENS, SIGMA = 6_000, 16_384, 0.6
"""Lengths of sequences: log-normal around a mean, with the limit of the published runs."""
TOKENS_PER_S = 50.0
"""Of one sequence, with a 1.5B model and a full batch on an H100."""
BLOCKS_AT_ONCE = 2


def shared_array(count: int) -> np.ndarray:
    """Zeros that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, 8 * count), np.float64)


@dataclass
class Work:
    """The rows of all actors.

    Attributes:
        lengths: tokens of each row.
        started: when the engine began each row, 0 if it is not running.
        generated: tokens that were generated for each row, also those that were lost.
        scale: by which the time is divided.
    """

    table: StageTable
    lengths: np.ndarray
    started: np.ndarray
    generated: np.ndarray
    scale: float

    async def make(self, request: Row) -> Row:
        index = int(request["roll_out_id"])
        self.started[index] = time.monotonic()
        await asyncio.sleep(self.lengths[index] / TOKENS_PER_S / self.scale)
        self.started[index] = 0.0
        self.generated[index] += self.lengths[index]
        return row_of(request)

    def act(self, rows: np.ndarray) -> None:
        """What an actor does."""
        runner = BlockRunner(self.table, self.make, lambda request, _: row_of(request), COMMIT_S / self.scale)
        blocks = [pa.table({"roll_out_id": [f"{row:07d}" for row in block]}) for block in rows.reshape(-1, BLOCK_ROWS)]

        async def run_all() -> None:
            slots = asyncio.Semaphore(BLOCKS_AT_ONCE)

            async def run_one(block: pa.Table) -> None:
                async with slots:
                    await runner.run(block)

            await asyncio.gather(*map(run_one, blocks))

        asyncio.run(run_all())

    def count_lost(self, rows: np.ndarray) -> None:
        """Count what the open sequences of a killed actor had generated."""
        open_ = rows[self.started[rows] > 0]
        tokens = (time.monotonic() - self.started[open_]) * self.scale * TOKENS_PER_S
        self.generated[open_] += np.minimum(tokens, self.lengths[open_])
        self.started[open_] = 0.0


def run(work: Work, parts: list[np.ndarray], every_s: float, victim: str, draw: np.random.Generator) -> int:
    """Run all actors to their end; the number of kills."""
    actors = {index: Child(COUNT_ONLY, work.act, part) for index, part in enumerate(parts)}
    kills, due = 0, time.monotonic() + every_s / work.scale
    while actors:
        time.sleep(0.02)
        for index in [index for index, actor in actors.items() if actor.has_ended()]:
            del actors[index]
        if time.monotonic() < due or not actors:
            continue
        due += every_s / work.scale
        chosen = {int(draw.integers(len(parts)))} if victim == "actor" else actors.keys()
        kills += bool(chosen & actors.keys())
        for index in chosen & actors.keys():
            actors[index].kill()
            work.count_lost(parts[index])
            actors[index] = Child(COUNT_ONLY, work.act, parts[index])
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=8, help=f"blocks of {BLOCK_ROWS} rows for each actor")
    parser.add_argument("--every", type=float, default=180.0, help="seconds between two kills")
    parser.add_argument("--victim", choices=["actor", "command"], default="actor")
    parser.add_argument("--scale", type=float, default=50.0)
    parser.add_argument("--limit", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    rows = options.actors * options.blocks * BLOCK_ROWS
    lengths = np.minimum(draw.lognormal(np.log(MEAN_TOKENS) - SIGMA**2 / 2, SIGMA, rows), MAX_TOKENS)
    with tempfile.TemporaryDirectory() as root:
        table = StageTable(storage_path(root) / "roll_out", "", "roll_outs", "roll_out_id").claim()
        work = Work(table, lengths, shared_array(rows), shared_array(rows), options.scale)
        began = time.monotonic()
        kills = run(work, np.split(np.arange(rows), options.actors), options.every, options.victim, draw)
        seconds = (time.monotonic() - began) * options.scale
    share = float(work.generated.sum() / lengths.sum() - 1)
    weighted = float((lengths**2).sum() / lengths.sum() / 2 / TOKENS_PER_S)
    killed = 1 if options.victim == "actor" else options.actors
    expected = (weighted + COMMIT_S / 2) * killed / options.actors / options.every
    victim = "one actor" if killed == 1 else "the command"
    print(
        f"{kills} kills of {victim} of {options.actors} actors in {seconds:,.0f} s, one each {options.every:g} s: "
        f"{share:.1%} of {lengths.sum() / 1e6:,.0f}M tokens were generated again; an open sequence is {weighted:.0f} s old "
        f"on average, so about {expected:.1%} are expected"
    )
    sys.exit(share > options.limit)


if __name__ == "__main__":
    main()
