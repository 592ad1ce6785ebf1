"""Preference pairs and paths of a toy task: a chosen side begins with the token 7, a rejected side with the token 9."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ray_processes import workers
from transformers import Qwen2Config, Qwen2ForCausalLM

from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.files import read_end
from vgs_ray.data.schemas import TABLES
from vgs_ray.data.storage import AnyPath
from vgs_ray.value.publish import copy_tokenizer
from vgs_ray.value.tuning.store import write_store as write_store_files

GOOD, BAD, VOCABULARY = 7, 9, 120
LONGEST = 16
"""Tokens of the longest pair."""


def pair_rows(train: int = 32, validation: int = 8) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)

    def tokens(most: int) -> list[int]:
        return draw.integers(20, VOCABULARY, int(draw.integers(1, most + 1))).tolist()

    shared = {"prompt": "", "chosen": "", "rejected": "", "visits_chosen": 3, "visits_rejected": 2, "depth": 1}
    return [
        {"pair_id": f"p{index:02}/tree/0/1/2", "problem_id": f"p{index:02}", "tree_id": f"p{index:02}/tree/0",
         "split": "train" if index < train else "validation", "prompt_ids": tokens(8), "chosen_ids": [GOOD, *tokens(7)],
         "rejected_ids": [BAD, *tokens(7)], "q_chosen": draw.uniform(0.2, 1.0), "q_rejected": draw.uniform(-1.0, -0.2), **shared}
        for index in range(train + validation)
    ]  # fmt: skip


def path_rows(train: int = 8, validation: int = 4) -> list[dict[str, Any]]:
    """Paths of one to three blocks, of which the first one decides."""
    draw, rows = np.random.default_rng(1), []
    for index in range(train + validation):
        good, blocks = index % 2 == 0, int(draw.integers(1, 4))
        tokens = [*draw.integers(20, VOCABULARY, 3).tolist(), GOOD if good else BAD]
        tokens += draw.integers(20, VOCABULARY, 3 * blocks - 1).tolist()
        q = draw.uniform(0.2, 1.0, blocks) * (1 if good else -1)
        rows.append(
            {"path_id": f"p{index:02}/tree/0/9", "problem_id": f"p{index:02}", "tree_id": f"p{index:02}/tree/0",
             "split": "train" if index < train else "validation", "tokens": tokens, "q": q.tolist(),
             "positions": [3 * block + 5 for block in range(blocks)], "outcome": "correct" if good else "incorrect"}
        )  # fmt: skip
    return rows


def make_policy(folder: Path) -> str:
    """A random policy of 0.03M parameters with the tokenizer of the sandbox."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=236, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=2, initializer_range=0.1,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    copy_tokenizer("sandbox:ref", folder)
    return str(folder)


def write_store(
    folder: Path, rows: list[dict[str, Any]] | None = None, paths: list[dict[str, Any]] | None = None
) -> Path:
    """The files that training reads."""
    files = []
    for name, some in (("pairs", rows or pair_rows()), ("value_paths", path_rows() if paths is None else paths)):
        files.append([folder / f"{name}.parquet"] if some else [])
        if some:
            pq.write_table(pa.Table.from_pylist(some, schema=TABLES[name]), files[-1][0])
    write_store_files(*files, folder / "store", LONGEST, VOCABULARY)
    return folder / "store"


def write_pairs_stage(recipe: Recipe, rows: list[dict[str, Any]]) -> None:
    """A complete stage pairs, with pairs in two parts, and paths."""
    stage = open_stage(recipe, "pairs", inputs=())
    assert stage is not None
    for name, parts in (("pairs", (rows[1::2], rows[::2])), ("value_paths", (path_rows(),))):
        table = stage_table(recipe, name)
        for part in parts:
            table.write_part(pa.Table.from_pylist(part, schema=table.schema))
        stage.publish(table, in_this_process)
    stage.close(rows=len(rows))


def kill_a_worker(log: AnyPath, killed_at: list[int]) -> None:
    """Kill a training worker of this process when `log` has five rows, and add their number to `killed_at`."""
    while len(rows_of(log)) < 5:
        time.sleep(0.05)
    worker = workers(os.getpid(), "RayTrainWorker")[-1]
    killed_at.append(len(rows_of(log)))
    worker.kill()


def rows_of(log: AnyPath) -> list[dict[str, float]]:
    return [json.loads(line) for line in read_end(log).splitlines()]
