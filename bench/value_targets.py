r"""What limits the value head of SVPO: the targets or the steps? Trains heads on the trees of a run, without DPO.

    python bench/value_targets.py runs/svpo --steps 45 270

Targets are Q at the ends of paired steps, as in stage tune with tune.paths=0, or Q at every node of finished paths. Policy and
head are both trained, by the squared error, in steps of 128 sequences. The measures are of finished paths of validation problems.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset as pads
import torch
from tabulate import tabulate

from vgs_ray.calibration import auc
from vgs_ray.models import model_path
from vgs_ray.value.policy_value import PolicyValueModel

SEQUENCES = 128
MEASURED = 64
"""Sequences in one forward pass of the measurement."""


class Sequence(NamedTuple):
    """Tokens with Q at some positions. `correct` is the outcome of a whole path."""

    problem: str
    tokens: list[int]
    positions: list[int]
    q: list[float]
    correct: bool = False


def paths(tree: dict[str, Any]) -> Iterator[Sequence]:
    """The finished paths of a tree with a verdict, with Q at the end of each block."""
    for leaf, (state, outcome) in enumerate(zip(tree["states"], tree["outcomes"], strict=True), 1):
        if state != "finished" or outcome not in ("correct", "incorrect"):
            continue
        chain, node = [], leaf
        while node:
            chain.append(node)
            node = tree["parents"][node - 1]
        tokens, positions = list(tree["prompt"]), []
        for node in reversed(chain):
            tokens += tree["tokens"][node - 1]
            positions.append(len(tokens) - 1)
        q = [tree["q"][node - 1] for node in reversed(chain)]
        yield Sequence(tree["problem_id"], tokens, positions, q, outcome == "correct")


def sides(pair: dict[str, Any]) -> Iterator[Sequence]:
    """Both sides of a pair, with Q at the end."""
    for side in ("chosen", "rejected"):
        tokens = [*pair["prompt_ids"], *pair[f"{side}_ids"]]
        yield Sequence(pair["problem_id"], tokens, [len(tokens) - 1], [pair[f"q_{side}"]])


def values(model: PolicyValueModel, sequences: list[Sequence]) -> torch.Tensor:
    """The values at all positions, one sequence after another."""
    length = max(len(each.tokens) for each in sequences)
    ids = torch.tensor([each.tokens + [0] * (length - len(each.tokens)) for each in sequences])
    mask = torch.tensor([[1] * len(each.tokens) + [0] * (length - len(each.tokens)) for each in sequences])
    rows = [row for row, each in enumerate(sequences) for _ in each.positions]
    return model.values(ids, mask)[rows, [position for each in sequences for position in each.positions]]


def train(policy: str, sequences: list[Sequence], steps: int, lr: float, head_lr: float) -> PolicyValueModel:
    """A policy with a head, trained by the squared error to Q with AdamW and a cosine schedule."""
    draw, model = random.Random(0), PolicyValueModel.from_policy(policy)
    torch.manual_seed(0)
    model.train()
    groups = [{"params": model.policy.parameters(), "lr": lr}, {"params": model.head.parameters(), "lr": head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    warmup = math.ceil(0.1 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    for _ in range(steps):
        batch = draw.sample(sequences, SEQUENCES)
        target = torch.tensor([q for each in batch for q in each.q])
        loss = ((values(model, batch) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def measure(model: PolicyValueModel, held_out: list[Sequence]) -> list[float]:
    """AUC and squared error at all nodes, AUC at the ends of answers, and how often the correct one of two answers to the same
    problem has the higher value."""
    batches = [held_out[start : start + MEASURED] for start in range(0, len(held_out), MEASURED)]
    found = torch.cat([values(model, batch) for batch in batches]).numpy()
    q = np.array([q for each in held_out for q in each.q])
    ends = found[np.cumsum([len(each.q) for each in held_out]) - 1]
    correct = np.array([each.correct for each in held_out])
    ranked = []
    for problem in {each.problem for each in held_out}:
        mine = np.array([each.problem == problem for each in held_out])
        ranked += [(good > bad) + (good == bad) / 2 for good in ends[mine & correct] for bad in ends[mine & ~correct]]
    return [
        auc(q > 0, found) or 0.0,
        float(((found - q) ** 2).mean()),
        auc(correct, ends) or 0.0,
        float(np.mean(ranked)),
    ]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pads.dataset(sorted(map(str, folder.glob("part-*.parquet")))).to_table().to_pylist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with the tables trees and pairs")
    parser.add_argument("--steps", type=int, nargs="+", default=[45, 270])
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--head-lr", type=float, default=1e-2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trees, pairs = rows_of(options.run / "trees"), rows_of(options.run / "pairs")
    policy = model_path(json.loads((options.run / "trees" / "_stage.json").read_text())["operation"]["policy.model"])
    training = [tree for tree in trees if tree["split"] == "train"]
    held_out = [path for tree in trees if tree["split"] == "validation" for path in paths(tree)]
    targets = {
        "ends of paired steps": [side for pair in pairs if pair["split"] == "train" for side in sides(pair)],
        "all nodes of paths": [path for tree in training for path in paths(tree)],
    }
    table = []
    for steps in options.steps:
        for name, sequences in targets.items():
            begin = time.perf_counter()
            model = train(policy, sequences, steps, options.lr, options.head_lr)
            table.append([name, len(sequences), steps, *measure(model, held_out), time.perf_counter() - begin])
            print(table[-1], flush=True)
    headers = [
        "targets",
        "sequences",
        "steps",
        "AUC, nodes",
        "MSE, nodes",
        "AUC, ends of answers",
        "ranked pairs",
        "seconds",
    ]
    print(tabulate(table, headers, floatfmt=("", "", "", ".3f", ".3f", ".3f", ".3f", ".0f")))


if __name__ == "__main__":
    main()
