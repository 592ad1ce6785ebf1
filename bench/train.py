"""Training throughput, packed against padded: python bench/train.py [--device cuda]. Needs only torch and transformers.

Compares tokens per second, without padding, of our step and of the published batching: micro-batches of 8 sequences in their
order, padded to the next multiple of 1/16 of the maximum length. Model, optimizer, loss and sequences are the same. The two
alternate, so that a busy machine slows both. Lengths are log-normal, clipped at the maximum.

Prints the fill of the packs of a batch of 1,024 sequences, the ratio of padded to real tokens (the upper bound of the speedup),
the speedup, and its share of the bound. On a GPU, the model is a Qwen2 with 1.5B parameters and random weights;
bench/train_gpu.py compares attention, activations and compilation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import bare_python  # noqa: F401
import numpy as np
import torch

from vgs_ray.config import Train
from vgs_ray.value.attention import choose_attention
from vgs_ray.value.model import ValueModel
from vgs_ray.value.packing import Example, MicroBatch, lay_out
from vgs_ray.value.training.feed import host_batch, row_multiple
from vgs_ray.value.training.optimizer import make_optimizer
from vgs_ray.value.training.parallel import Worker, prepare
from vgs_ray.value.training.partition import best_fit, partition_batch
from vgs_ray.value.training.step import Step, Trainer

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


def packed(examples: list[Example], budget: int, multiple: int, device: torch.device) -> Step:
    """Our micro-batches."""
    lengths = np.array([[len(example.tokens)] for example in examples])
    partition = partition_batch(lengths, lengths, 1, budget, "packed", multiple=multiple)
    packs = ([examples[place] for place in pack] for pack in partition.packs[0])
    return Step(partition, [host_batch(lay_out(pack, "packed", multiple=multiple), device) for pack in packs], 0.0)


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


def seconds_of(trainer: Trainer, step: Step) -> float:
    """Seconds of one optimizer step."""
    device = trainer.worker.device
    _wait(device)
    began = time.perf_counter()
    trainer.step(0, step)
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(arguments: argparse.Namespace, device: torch.device) -> None:
    """Packed against padded, for each distribution of lengths."""
    gpu, longest = device.type == "cuda", arguments.longest
    size, budget = QWEN_1_5B if gpu else TINY, arguments.budget * arguments.longest
    trainer = make_trainer(size, longest, Train(dropout=0.0, compile=gpu, micro_tokens=budget), Worker(device=device))
    multiple = row_multiple(trainer.config, device)
    print(f"{'mean':>5} {'sigma':>5} {'packs full':>10} {'padded/real':>11} {'packed tok/s':>12} {'padded tok/s':>12} "
          f"{'ratio':>6} {'of bound':>8}")  # fmt: skip
    for mean, sigma in DISTRIBUTIONS:
        examples = draw(arguments.sequences, longest, mean, sigma, size["vocab_size"])
        ours, full = packed(examples, budget, multiple, device), fullness(longest, mean, sigma, budget)
        batches, tokens = list(padded(examples, longest)), ours.partition.tokens
        theirs = Step(ours.partition, [host_batch(batch, device) for batch in batches], 0.0)
        bound = sum(batch.input_ids.size for batch in batches) / tokens
        for both in (ours, theirs):  # warm-up
            seconds_of(trainer, both._replace(micro_batches=both.micro_batches[:1]))
        seconds = [[seconds_of(trainer, each) for each in (ours, theirs)] for _ in range(arguments.rounds)]
        fast, slow = (tokens / statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"{mean:5.1f} {sigma:5.1f} {full:10.1%} {bound:11.2f} {fast:12,.0f} {slow:12,.0f} {fast / slow:6.2f} "
              f"{fast / slow / bound:8.2f}", flush=True)  # fmt: skip


def make_trainer(size: dict, longest: int, config: Train, worker: Worker) -> Trainer:
    """A value model with random weights, prepared as in stage train."""
    attention = choose_attention(config.attention, worker.device, config.attention_dropout, config.micro_tokens)
    model = build(size, longest, attention, worker.device)
    prepare(model, config, worker)
    return Trainer(model.train(), make_optimizer(model, config), config, worker)


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
    arguments = parser.parse_args()
    gpu = arguments.device == "cuda"
    arguments.longest = arguments.longest or (16384 if gpu else 512)
    arguments.sequences = arguments.sequences or (32 if gpu else 128)
    device = torch.device(arguments.device)
    print(f"{torch.cuda.get_device_name(device) if gpu else f'CPU, {torch.get_num_threads()} threads'}, "
          f"torch {torch.__version__}, lengths up to {arguments.longest:,}", flush=True)  # fmt: skip
    compare(arguments, device)


if __name__ == "__main__":
    main()
