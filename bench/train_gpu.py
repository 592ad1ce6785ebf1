"""Training speed on a GPU by switch: python bench/train_gpu.py. Needs torch 2.11, transformers 5.17 or newer, and no network.

Each row is a Qwen2 with 1.5B parameters and random weights that runs the optimizer step of stage train (`Trainer.step`): sharded
over one worker, in bfloat16 with float32 masters, on packed sequences of up to 16,384 tokens. A row has a process and a limit of
seconds of its own; one that fails prints the reason. All take less than eight minutes.

Columns: the activations that were kept and whether layers were compiled, seconds of the first step (with compilation), tokens/s
without padding, MFU (6 FLOPs per weight and token, and attention to earlier tokens only; recomputation does not count), peak
memory, and the estimate by which `train.activations=auto` decides. `--device cpu` is a trial with a tiny model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from train import DISTRIBUTIONS, QWEN_1_5B, TINY, draw, make_trainer, packed, seconds_of

from vgs_ray.config import Train
from vgs_ray.value.training.activations import choose_activations, training_bytes
from vgs_ray.value.training.feed import row_multiple
from vgs_ray.value.training.parallel import Worker
from vgs_ray.value.training.throughput import peak_flops, training_flops

PRELOADED = ["train", "torch.distributed.fsdp", "transformers.models.qwen2.modeling_qwen2"]


class Row(NamedTuple):
    """Switches of a row.

    Attributes:
        settings: fields of `Train`.
        lengths: tokens of a micro-batch, in maximum lengths.
        liger: replace norms, MLP and rotary embeddings by those of the package liger-kernel.
    """

    settings: dict[str, str | bool]
    lengths: int = 1
    liger: bool = False


ROWS = {
    "defaults": Row({}),
    "budget": Row({"activations": "budget"}),
    "checkpoint": Row({"activations": "checkpoint"}),
    "not-compiled": Row({"activations": "keep", "compile": False}),
    "not-compiled-checkpoint": Row({"activations": "checkpoint", "compile": False}),
    "two-lengths": Row({}, lengths=2),
    "varlen": Row({"attention": "varlen"}),
    "varlen_fa3": Row({"attention": "varlen_fa3"}),
    "varlen_fa4": Row({"attention": "varlen_fa4"}),
    "flash_attention_2": Row({"attention": "flash_attention_2"}),
    "liger": Row({"activations": "keep", "compile": False}, liger=True),
    "flex_attention": Row({"attention": "flex_attention"}),  # last, because it compiles for minutes
}


def measure(row: Row, device: torch.device, longest: int, rounds: int) -> str:
    """The columns of a row."""
    gpu = device.type == "cuda"
    if row.liger:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen2

        apply_liger_kernel_to_qwen2(rope=True, rms_norm=True, swiglu=True, fused_linear_cross_entropy=False)
    config = Train(**{"compile": gpu, "micro_tokens": row.lengths * longest, **row.settings})
    trainer = make_trainer(QWEN_1_5B if gpu else TINY, longest, config, Worker(device=device, bf16=True))
    model, flops, peak = trainer.model, training_flops(trainer.model), peak_flops(device)
    kept = choose_activations(model, config, device, 1)
    estimate = training_bytes(model, config, 1, kept) / 2**30
    examples = draw(8, longest, *DISTRIBUTIONS[0], model.config.vocab_size)
    step = packed(examples, config.micro_tokens, row_multiple(config, device), device)
    first = seconds_of(trainer, step)
    seconds = statistics.median(seconds_of(trainer, step) for _ in range(rounds))
    sizes = np.array([len(example.tokens) for example in examples])
    mfu = f"{flops.of_sequences(sizes) / seconds / peak:6.1%}" if peak else "     ?"
    memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:8.1f}" if gpu else "       ?"
    columns = (
        f"{model.config._attn_implementation:<17} {kept:<11} {'yes' if config.compile else 'no':<7} {config.micro_tokens:>6,}",
        f"{first:7.1f} {sizes.sum() / seconds:8,.0f} {mfu} {memory} {estimate:8.1f}",
    )
    return " ".join(columns)


def send_row(name: str, arguments: argparse.Namespace, out: Connection) -> None:
    """In a process of its own: measure a row, or send why it does not run."""
    try:
        out.send(measure(ROWS[name], torch.device(arguments.device), arguments.longest, arguments.rounds))
    except Exception as error:  # of any library: out of memory, no kernel for this GPU, a missing package
        out.send(f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}")


def run_row(name: str, arguments: argparse.Namespace, seconds: float) -> str:
    """The columns of a row, or why there are none."""
    context = multiprocessing.get_context("forkserver")
    compiler = ["torch._inductor.compile_fx"] if arguments.device == "cuda" else []
    context.set_forkserver_preload(PRELOADED + compiler)  # imported once, in the server from which processes are forked
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_row, args=(name, arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else f"stopped after {seconds:.0f} s"
    except EOFError:
        process.join(10)
        return f"the process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=Path(__file__).name, epilog=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--longest", type=int, default=0, help="maximum length; by default 16384, 256 on a CPU")
    parser.add_argument("--rounds", type=int, default=3, help="steps of a row that are timed")
    parser.add_argument("--seconds", type=float, default=75, help="limit of a row")
    parser.add_argument("--total", type=float, default=450, help="limit of all rows; the last ones may not run")
    parser.add_argument("rows", nargs="*", help=f"rows to run; by default all of {', '.join(ROWS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}: pass some of {', '.join(ROWS)}")
    gpu, began = arguments.device == "cuda", time.monotonic()
    arguments.longest = arguments.longest or (16384 if gpu else 256)
    print(f"{torch.cuda.get_device_name() if gpu else 'CPU'}, torch {torch.__version__}\n{'row':<24} {'attention':<17} "
          f"{'activations':<11} {'compile':<7} {'pack':>6} {'first s':>7} {'tokens/s':>8} {'MFU':>6} {'peak GiB':>8} "
          f"{'estimate':>8}", flush=True)  # fmt: skip
    for name in arguments.rows or ROWS:
        left = min(arguments.seconds, arguments.total - (time.monotonic() - began))
        print(f"{name:<24} {run_row(name, arguments, left) if left > 0 else 'not run: no time left'}", flush=True)


if __name__ == "__main__":
    main()
