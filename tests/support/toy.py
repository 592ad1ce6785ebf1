"""A toy task for training: tables, a backbone, and runs of `fit`, also in separate processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from transformers import Qwen2Config, Qwen2ForCausalLM

from vgs_ray.config import Train
from vgs_ray.data.files import write_json
from vgs_ray.data.schemas import LABELS, ROLL_INS, ROLL_OUTS
from vgs_ray.data.storage import AnyPath
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import lay_out
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loader import Examples
from vgs_ray.value.training.loop import fit
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.parallel import Worker, whole_weights
from vgs_ray.value.training.partition import partition_batch
from vgs_ray.value.training.store import Sources, build_store

MODELS = ("transformers.models.qwen2.modeling_qwen2", "transformers.modeling_utils")
CPU = torch.device("cpu")
torch.set_num_threads(1)  # faster for models this small, and by far on a busy machine
CONFIG = Train(
    max_length=64, batch_size=8, micro_tokens=96, steps=6, lr=3e-3, min_warmup_steps=0, workers=1, checkpoint_every=3,
    validate_every=100,
    dropout=0.1, attention_dropout=0.1, compile=False, async_checkpoints=False,
)  # fmt: skip


def make_backbone(folder: Path) -> str:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def make_tables(root: Path) -> Path:
    """Tables of a task in which an answer is correct if its completion contains the token 7."""
    draw = np.random.default_rng(0)
    ins, outs, labels = [], [], []
    for index in range(120):
        name = f"p{index // 4}/a/{index % 4}"
        tokens = draw.integers(8, 40, 10).tolist()
        ins.append({"roll_in_id": name, "problem_id": f"p{index // 4}", "policy": "a", "seed": 0, "prompt": [1, 2, 3],
                    "tokens": tokens, "finish_reason": "stop", "sampling": "{}", "engine": "toy"})  # fmt: skip
        for cut in range(2):
            good = bool(draw.integers(2))
            completion = ([7] if good else [5]) + draw.integers(8, 40, int(draw.integers(1, 20))).tolist()
            shared = {
                "roll_out_id": f"{name}/{cut}",
                "roll_in_id": name,
                "problem_id": f"p{index // 4}",
                "cut": cut + 2,
            }
            outs.append({**shared, "policy": "a", "seed": 0, "tokens": completion, "finish_reason": "stop", "sampling": "{}",
                         "engine": "toy"})  # fmt: skip
            labels.append({**shared, "split": "train" if index < 100 else "validation", "label": int(good)})
    for stage, schema, rows in (("roll_in", ROLL_INS, ins), ("roll_out", ROLL_OUTS, outs), ("label", LABELS, labels)):
        publish_rows(root / stage, schema, rows)
    build_store(sources(root), root / "store")
    return root


NAMES = {"roll_in": "roll_ins", "roll_out": "roll_outs", "label": "labels"}


def publish_rows(stage: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """A complete stage whose table has two files."""
    stage.mkdir()
    files, half = [], len(rows) // 2
    for index, some in enumerate((rows[:half], rows[half:])):
        file = stage / f"part-{index:05d}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(some, schema=schema), file, row_group_size=32)
        files.append({"file": file.name, "rows": len(some), "bytes": file.stat().st_size})
    write_json(
        stage / "_stage.json",
        {"stage": stage.name, "identity": {}, "operation": {}, "inputs": {}, "tables": {NAMES[stage.name]: files}},
    )


def sources(root: Path) -> Sources:
    return Sources(*(sorted((root / stage).glob("part-*.parquet")) for stage in ("label", "roll_in", "roll_out")))


def read_rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def load(tables: Path, split: str = "train", config: Train = CONFIG) -> Examples:
    return Examples(tables / "store", split, config.loss, config.max_length)


def new_model(backbone: str, dropout: float = CONFIG.dropout) -> ValueModel:
    return ValueModel.from_backbone(
        backbone, dropout=dropout, seed=0, attn_implementation="varlen", attention_dropout=dropout
    )


def weights_of(model: ValueModel) -> torch.Tensor:
    return torch.cat([weight.reshape(-1) for weight in whole_weights(model).values()])


def loss_and_gradient(
    model: ValueModel, examples, layout: str, budget: int, loss: str = "outcome", device: torch.device = CPU, multiple=1
):
    width = 2 if loss == "bradley_terry" else 1
    lengths = np.array([len(example.tokens) for example in examples]).reshape(-1, width)
    starts = np.array([example.target_start for example in examples]).reshape(-1, width)
    plan, total = partition_batch(lengths, lengths - starts, 1, budget, layout), torch.zeros((), device=device)
    for pack in plan.packs[0]:
        chosen = [examples[place * width + member] for place in pack for member in range(width)]
        micro = lay_out(chosen, layout, loss == "bradley_terry", multiple)
        part = summed_loss(model, to_device(micro, device), loss) / plan.units
        part.backward()
        total += part.detach()
    return total, torch.cat([w.grad.reshape(-1) for w in model.parameters() if w.grad is not None])


def poison(model: ValueModel) -> None:
    with torch.no_grad():
        model.score[0].weight.fill_(float("nan"))


def run(
    backbone: str,
    tables: Path,
    folder: Path,
    config: Train = CONFIG,
    worker: Worker | None = None,
    killed_at: int = 0,
    held_out: int = 0,
    checkpoints: AnyPath | None = None,
) -> list[float]:
    """Train, write the weights to `final.pt`, and return the losses. The process kills itself after step `killed_at`.

    The checkpoints are in `folder` too, or in `checkpoints`.
    """
    model = ValueModel.from_backbone(
        backbone, config.num_labels, config.dropout, seed=0, attn_implementation="varlen",
        attention_dropout=config.attention_dropout,
    )  # fmt: skip
    worker, losses, validation = worker or Worker(), [], load(tables, "validation")

    def report(metrics: dict[str, float], _: object) -> None:
        losses.append(metrics["loss"])
        if metrics["step"] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    examples = [validation.example(index) for index in range(held_out)]
    fit(model, config, load(tables), examples, checkpoints or folder, 0, worker, report)
    weights = weights_of(model)
    if worker.rank == 0:
        torch.save(weights, folder / "final.pt")
        (folder / "losses.txt").write_text("\n".join(map(repr, losses)))
    return losses


def read_losses(folder: Path) -> list[float]:
    return [float(line) for line in (folder / "losses.txt").read_text().splitlines()]


def in_processes(world: int, body: Callable[..., None], folder: Path, *arguments: object) -> list[int]:
    """Run `body(worker, folder, *arguments)` in `world` new processes with gloo, and return their exit codes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    # Imported once, in the server from which the processes are forked. The server does not find this module.
    context.set_forkserver_preload(
        ["vgs_ray.value.training.loop", "vgs_ray.value.tuning.run", "torch.distributed.fsdp", *MODELS]
    )
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    started = [
        context.Process(target=_enter, args=(rank, world, body, folder, arguments, credentials), daemon=True)
        for rank in range(world)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def _enter(
    rank: int,
    world: int,
    body: Callable[..., None],
    folder: Path,
    arguments: tuple[object, ...],
    credentials: dict[str, str],
) -> None:
    os.environ.update(credentials)
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    body(Worker(rank, world), folder, *arguments)
    if world > 1:
        dist.destroy_process_group()
