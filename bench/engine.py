"""Throughput of both engines on a tiny model: python bench/engine.py [--sequences 128] [--model FOLDER].

Rates are given per second of wall-clock time and per second of this process's CPU time, which depends less on the machine's other
load. Out: a table with ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from vgs_ray.config import Engine, Sampling
from vgs_ray.engines import build_policy, build_value

PROMPT, RESPONSE = 40, 100


def random_model(folder: Path, positions: int = 1024, ends: bool = True) -> str:
    """Save a random Qwen2 of 0.9M parameters, the size of the sandbox's policy. Without `ends`, it hardly ever ends an answer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=ends,
    )
    model = Qwen2ForCausalLM(config)
    if not ends:  # the end token's logit is 0, far below the largest logit
        model.lm_head.weight.data *= 20
        model.lm_head.weight.data[1] = 0
    model.save_pretrained(folder)
    return str(folder)


def rate(work: Callable[[], Coroutine[Any, Any, Any]], done: Callable[[], int]) -> tuple[float, float]:
    """Units of work per second of wall-clock time and per second of CPU time."""
    before, wall_clock, cpu = done(), time.perf_counter(), time.process_time()
    asyncio.run(work())
    units = done() - before
    return units / (time.perf_counter() - wall_clock), units / (time.process_time() - cpu)


def line(name: str, rates: tuple[float, float], base: tuple[float, float]) -> None:
    print(f"{name:44}{rates[0]:9.0f} /s {rates[1]:9.0f} /CPU-s {rates[1] / base[1]:8.2f} x", flush=True)


def generation(policy: Any, prompts: list[tuple[int, ...]]) -> None:
    sampling = Sampling(max_tokens=RESPONSE)

    def generated() -> int:
        return policy.usage.generated

    def batch(count: int) -> Callable[[], Coroutine[Any, Any, Any]]:
        async def work() -> None:
            await asyncio.gather(*(policy.extend(prompt, sampling, i) for i, prompt in enumerate(prompts[:count])))

        return work

    rate(batch(8), generated)  # warm-up
    base = rate(batch(1), generated)
    line("generated tokens, 1 sequence at a time", base, base)
    for count in sorted({8, 64, len(prompts)}):
        line(f"generated tokens, {count} sequences", rate(batch(count), generated), base)


def scoring(value: Any, sequences: list[tuple[int, ...]]) -> None:
    requested = 0

    async def work(length: int) -> None:
        nonlocal requested
        await asyncio.gather(*(value.score(tokens[:length]) for tokens in sequences))
        requested += len(sequences)

    asyncio.run(work(8))
    whole = PROMPT + RESPONSE
    fresh = rate(lambda: work(whole), lambda: requested)
    line(f"scores of {whole} tokens, nothing cached", fresh, fresh)
    line(f"scores of {whole} tokens, prefix cached", rate(lambda: work(whole), lambda: requested), fresh)
    cached = value.usage.cached
    print(f"{'cached share of the last pass':44}{cached / (len(sequences) * whole):9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--model", default="", help="folder of a causal language model; default: a random model")
    arguments = parser.parse_args()
    engine = Engine(
        max_model_len=512,
        max_num_seqs=arguments.sequences,
        kv_cache_gib=0.5,
        dtype="float32",
        enforce_eager=True,
        threads=1,
    )
    generator = random.Random(0)
    sequences = [
        tuple(generator.randrange(2, 100) for _ in range(PROMPT + RESPONSE)) for _ in range(arguments.sequences)
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or random_model(Path(folder) / "policy")
        start = time.perf_counter()
        policy = build_policy(model, engine)
        print(f"{'policy started, s':44}{time.perf_counter() - start:9.1f}")
        generation(policy, [tokens[:PROMPT] for tokens in sequences])

        from vgs_ray.value.model import ValueModel

        ValueModel.from_backbone(model).save_pretrained(Path(folder) / "value")
        start = time.perf_counter()
        value = build_value(str(Path(folder) / "value"), engine)
        print(f"{'value model started, s':44}{time.perf_counter() - start:9.1f}")
        scoring(value, sequences)
        policy.close()
        value.close()


if __name__ == "__main__":
    main()
