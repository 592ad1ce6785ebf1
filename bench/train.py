"""Training throughput, packed against padded: python bench/train.py [--device cuda]. Needs only torch and transformers.

Compares tokens per second, without padding, of our step and of the published batching: micro-batches of 8 sequences in their
order, padded to the next multiple of 1/16 of the maximum length. Model, optimizer, loss and sequences are the same. The two
alternate, so that a busy machine slows both. Lengths are log-normal, clipped at the maximum.

Prints the fill of the packs of a batch of 1,024 sequences, the ratio of padded to real tokens (the upper bound of the speedup),
the speedup, and its share of the bound. On a GPU it also prints the MFU of a Qwen2 with 1.5B parameters and random weights, by
attention, activation checkpointing, compilation and micro-batch size.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vgs_ray.config import Train
from vgs_ray.value.attention import choose_attention
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, MicroBatch, lay_out
from vgs_ray.value.training.feed import to_device
from vgs_ray.value.training.loss import summed_loss
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker, clip_gradients, prepare
from vgs_ray.value.training.partition import best_fit, partition_batch
from vgs_ray.value.training.throughput import peak_flops, training_flops

DISTRIBUTIONS = ((0.7, 0.5), (0.4, 0.7))  # mean as a share of the maximum length, sigma
PUBLISHED_ROWS, PUBLISHED_STEP, BATCH = 8, 16, 1024
TINY = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
QWEN_1_5B = {
    "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2,
}  # fmt: skip
VARIANTS = (  # attention, activation checkpointing, compile, micro-batch in maximum lengths
    ("auto", True, False, 1),
    ("auto", True, True, 1),
    ("auto", False, True, 1),
    ("auto", False, True, 2),
    ("varlen", True, True, 2),
    ("sdpa", True, False, 1),
    ("flex_attention", True, True, 1),  # last, because it compiles for minutes
)


def build(size: dict, longest: int, attention: str, device: torch.device) -> ValueModel:
    """A value model with random weights."""
    from transformers import AutoModel, Qwen2Config

    config = Qwen2Config(**size, max_position_embeddings=longest, classifier_dropout=0.0)
    torch.manual_seed(0)
    with torch.device(device):
        backbone = AutoModel.from_config(config, dtype=torch.float32, attn_implementation=attention)
        return ValueModel(backbone)


def draw(count: int, longest: int, mean: float, sigma: float, vocabulary: int) -> list[Example]:
    """Random sequences; the last 40% are the roll-out, as in the published data."""
    source = np.random.default_rng(0)
    sizes = source.lognormal(np.log(mean * longest) - sigma**2 / 2, sigma, count).clip(2, longest).astype(int)
    return [
        Example(str(place), source.integers(1, vocabulary, size).astype(np.int32), int(0.6 * size), place % 3)
        for place, size in enumerate(sizes)
    ]


def packed(examples: list[Example], budget: int) -> list[MicroBatch]:
    """Our micro-batches."""
    lengths = np.array([[len(example.tokens)] for example in examples])
    packs = partition_batch(lengths, lengths, 1, budget, "packed").packs[0]
    return [lay_out([examples[place] for place in pack], "packed") for pack in packs]


def fullness(longest: int, mean: float, sigma: float, budget: int) -> float:
    """Share of the packs of a published batch that is filled with tokens."""
    lengths = np.array([len(example.tokens) for example in draw(BATCH, longest, mean, sigma, 2)])
    return float(lengths.sum() / (budget * len(best_fit(lengths, budget))))


def padded(examples: list[Example], longest: int) -> Iterator[MicroBatch]:
    """The published micro-batches, implemented from their description."""
    unit = longest // PUBLISHED_STEP
    for begin in range(0, len(examples), PUBLISHED_ROWS):
        batch = lay_out(examples[begin : begin + PUBLISHED_ROWS], "bucketed")
        room = -(-batch.input_ids.shape[1] // unit) * unit - batch.input_ids.shape[1]
        wide = [np.pad(array, ((0, 0), (0, room))) for array in batch[:5]]
        yield MicroBatch(*wide, batch.packed, batch.ids)


def step(
    model: ValueModel, optimizer: torch.optim.Optimizer, batches: list[MicroBatch], units: int, config: Train
) -> float:
    """Seconds of one optimizer step."""
    device = next(model.parameters()).device
    _wait(device)
    began = time.perf_counter()
    optimizer.zero_grad()
    for batch in batches:
        (summed_loss(model, to_device(batch, device), "outcome") / units).backward()
    clip_gradients(model, config.clip_norm)
    optimizer.step()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(arguments: argparse.Namespace, device: torch.device) -> None:
    """Packed against padded, for each distribution of lengths."""
    gpu, longest = device.type == "cuda", arguments.longest
    size = QWEN_1_5B if gpu else TINY
    config = Train(dropout=0.0, activation_checkpointing=gpu)
    model = build(size, longest, choose_attention("auto", device, 0.0), device)
    prepare(model, config, Worker(device=device))
    optimizer = make_optimizer(model, config)
    model.train()
    print(f"{'mean':>5} {'sigma':>5} {'packs full':>10} {'padded/real':>11} {'packed tok/s':>12} {'padded tok/s':>12} "
          f"{'ratio':>6} {'of bound':>8}")  # fmt: skip
    for mean, sigma in DISTRIBUTIONS:
        examples = draw(arguments.sequences, longest, mean, sigma, size["vocab_size"])
        budget = arguments.budget * longest
        ours, full = packed(examples, budget), fullness(longest, mean, sigma, budget)
        theirs = list(padded(examples, longest))
        tokens = sum(len(example.tokens) for example in examples)
        bound = sum(batch.input_ids.size for batch in theirs) / tokens
        for batches in (ours[:1], theirs[:1]):  # warm-up
            step(model, optimizer, batches, len(examples), config)
        seconds = [
            [step(model, optimizer, batches, len(examples), config) for batches in (ours, theirs)]
            for _ in range(arguments.rounds)
        ]
        fast, slow = (tokens / statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"{mean:5.1f} {sigma:5.1f} {full:10.1%} {bound:11.2f} {fast:12,.0f} {slow:12,.0f} {fast / slow:6.2f} "
              f"{fast / slow / bound:8.2f}", flush=True)  # fmt: skip


def table(arguments: argparse.Namespace, device: torch.device) -> None:
    """MFU of the 1.5B model on a GPU, or the error of a variant that does not run."""
    start = time.monotonic()
    examples = draw(16, arguments.longest, *DISTRIBUTIONS[0], QWEN_1_5B["vocab_size"])
    print(
        f"\n{'attention':<18} {'checkpointing':<13} {'compile':<7} {'budget':>8} {'tok/s':>8} {'MFU':>6} {'peak GiB':>8}"
    )
    for attention, checkpointing, compiled, lengths in VARIANTS:
        if time.monotonic() - start > arguments.seconds:
            print("out of time: the remaining variants were not run")
            return
        name, budget = choose_attention(attention, device, 0.0), lengths * arguments.longest
        config = Train(dropout=0.0, activation_checkpointing=checkpointing, compile=compiled)
        line = f"{name:<18} {checkpointing!s:<13} {compiled!s:<7} {budget:>8,}"
        try:
            print(line, measure_variant(name, config, examples, budget, arguments.longest, device), flush=True)
        except (RuntimeError, ImportError, ValueError) as error:  # out of memory is a RuntimeError
            print(f"{line} {type(error).__name__}: {str(error).splitlines()[0][:80]}", flush=True)
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def measure_variant(
    attention: str, config: Train, examples: list[Example], budget: int, longest: int, device: torch.device
) -> str:
    """Tokens per second, MFU and peak memory of one variant."""
    torch.cuda.reset_peak_memory_stats(device)
    model = build(QWEN_1_5B, longest, attention, device)
    flops, peak = training_flops(model), peak_flops(device)
    prepare(model, config, Worker(device=device))
    optimizer = make_optimizer(model, config)
    model.train()
    batches = packed(examples, budget)
    for _ in range(2):  # warm-up; the first step compiles
        step(model, optimizer, batches, len(examples), config)
    seconds = statistics.median(step(model, optimizer, batches, len(examples), config) for _ in range(3))
    sizes = np.array([len(example.tokens) for example in examples])
    mfu = f"{flops.of_sequences(sizes) / seconds / peak:6.1%}" if peak else "     ?"
    return f"{sizes.sum() / seconds:8,.0f} {mfu} {torch.cuda.max_memory_allocated(device) / 2**30:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=Path(__file__).name, epilog=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--longest", type=int, default=0, help="maximum length; by default 512 on a CPU, 16384 on a GPU"
    )
    parser.add_argument(
        "--sequences", type=int, default=0, help="sequences in a step; by default 128 on a CPU, 32 on a GPU"
    )
    parser.add_argument("--budget", type=int, default=4, help="tokens of a micro-batch, in maximum lengths")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=240, help="time after which the table starts no further variant"
    )
    arguments = parser.parse_args()
    gpu = arguments.device == "cuda"
    arguments.longest = arguments.longest or (16384 if gpu else 512)
    arguments.sequences = arguments.sequences or (32 if gpu else 128)
    device = torch.device(arguments.device)
    print(f"{torch.cuda.get_device_name(device) if gpu else f'CPU, {torch.get_num_threads()} threads'}, "
          f"torch {torch.__version__}, lengths up to {arguments.longest:,}", flush=True)  # fmt: skip
    compare(arguments, device)
    if gpu:
        table(arguments, device)


if __name__ == "__main__":
    main()
