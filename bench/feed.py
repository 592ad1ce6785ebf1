"""Host time of a training step without the model: python bench/feed.py

One worker of 64 prepares its share of batches of 1,024 sequences of up to 17,408 tokens, in packs as long as that: it partitions
the batch, reads tokens from the store, lays them out, and writes one buffer for each pack. Prints how long that takes, and how
long a step waits for it if a thread prepares it while the device is busy with the step before. The device is a sleep.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vgs_ray.config import Train
from vgs_ray.data.lists import ragged
from vgs_ray.value.training.batches import Batches
from vgs_ray.value.training.feed import ahead, row_multiple
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.store import Sources, build_store
from vgs_ray.value.training.throughput import TrainingFlops

LONGEST, PROMPT, WORKERS = 17_408, 150, 64
CPU = torch.device("cpu")
CONFIG = Train(max_length=LONGEST, micro_tokens=LONGEST, compile=True)
QWEN_1_5B = TrainingFlops(6 * 1.31e9, 12.0 * 28 * 1536)


def make_store(folder: Path, rows: int) -> Path:
    """A store of roll-outs, each from its own roll-in. Lengths are log-normal, with a mean of 0.7 of the maximum."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(np.log(0.7 * LONGEST) - 0.125, 0.5, rows), 1000, LONGEST).astype(int) - PROMPT
    cuts = lengths * 6 // 10
    ids, problems = [f"{row:064d}" for row in range(rows)], [f"{row // 56:064d}" for row in range(rows)]

    def tokens(sizes: np.ndarray) -> pa.Array:
        return ragged([draw.integers(0, 151_000, size, np.int32) for size in sizes], pa.int32())

    tables = {
        "labels": {"roll_out_id": ids, "roll_in_id": ids, "problem_id": problems, "cut": pa.array(cuts, pa.int32()),
                   "split": ["train"] * rows, "label": pa.array(draw.integers(0, 3, rows), pa.int8())},
        "roll_ins": {"roll_in_id": ids, "prompt": tokens(np.full(rows, PROMPT)), "tokens": tokens(cuts)},
        "roll_outs": {"roll_out_id": ids, "tokens": tokens(lengths - cuts)},
    }  # fmt: skip
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=256)
    build_store(Sources(*([folder / f"{name}.parquet"] for name in tables)), folder / "store")
    return folder / "store"


def waits(steps: Iterator[object], busy_s: float) -> list[float]:
    """Milliseconds that each step waits for its micro-batches; the device is busy for some time after each."""
    found, began = [], time.perf_counter()
    for _ in steps:
        found.append(1e3 * (time.perf_counter() - began))
        time.sleep(busy_s)
        began = time.perf_counter()
    return found


def row(name: str, milliseconds: list[float]) -> None:
    print(f"{name:<50} {statistics.median(milliseconds):>8.1f} {max(milliseconds):>8.1f}", flush=True)


def timed(work: Callable[[int], object], steps: range) -> list[float]:
    """Milliseconds of each step's work."""
    return waits(map(work, steps), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=float, default=0.5, help="seconds for which the device is busy with a step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        examples = Examples(make_store(Path(temporary), options.rows), "train", "outcome", LONGEST)
        batches = Batches(examples, CONFIG, 0, Worker(world=WORKERS), QWEN_1_5B)
        steps = range(1, options.steps + 1)
        batches.prepare(0)  # shuffles the epoch
        print(f"{'milliseconds a step':<50} {'median':>8} {'maximum':>8}")
        row("order and partition of the batch", timed(batches.batch, steps))
        row("the same, tokens, layout and buffers", timed(batches.prepare, steps))
        prepared = map(batches.prepare, steps)
        row("waiting of the step, prepared by a thread", waits(ahead(prepared, CPU), options.busy)[1:])
        shares = [batches.prepare(step) for step in steps]
    buffers = [micro for share in shares for micro in share.micro_batches]
    tail = statistics.mean(share.partition.padding for share in shares)
    size = statistics.mean(4 * len(micro.buffer) for micro in buffers)
    lengths = {micro.shape for micro in buffers}
    print(f"{len(buffers) / len(shares):.1f} packs a step, {size / 1e3:.0f} kB and one copy each")
    print(
        f"{tail:.1%} of the tokens in tails, {len(lengths)} lengths of rows, multiples of {row_multiple(CONFIG, CPU):,}"
    )


if __name__ == "__main__":
    main()
