"""The price of values: python bench/one_pass.py [--sequences 128] [--rounds 3] [--block 64].

The sandbox's policy generates blocks with no value, with a value from the same forward pass (`VllmPolicyValue`), and with a
value from a second engine, whose value model has the policy's size. Rates are per second of this process's CPU time, which
depends less on the machine's other load. The ways take turns; a ratio is the median over the rounds. Out: a table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from engine import rate

from vgs_ray.config import Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines, build_policy
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows

LENGTH = 128


def answers(policy: Any, value: Any, prompts: list[Tokens], block: int) -> Callable[[], Coroutine[Any, Any, Any]]:
    """All prompts at once: answers of at most `LENGTH` tokens in blocks, each scored if there is a value."""
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=block)

    async def answer(prompt: Tokens, seed: int) -> None:
        tokens, finished = prompt, False
        while not finished and len(tokens) < len(prompt) + LENGTH:
            completion = await policy.extend(tokens, sampling, seed)
            tokens, finished = tokens + completion.tokens, completion.finished
            if value is not None and completion.score is None:
                await value.score(tokens)

    async def work() -> None:
        await asyncio.gather(*(answer(prompt, seed) for seed, prompt in enumerate(prompts)))

    return work


def measure(ways: dict[str, tuple[Any, Any]], prompts: list[Tokens], block: int, rounds: int) -> None:
    """Print the median rate of each way, and its median ratio to the first way in the same round."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round in range(rounds + 1):  # the first warms up
        for name, (policy, value) in ways.items():
            for engine in (policy, value):
                if engine is not None:
                    engine.loop.engine.reset_prefix_cache()
            generated = lambda policy=policy: policy.usage.generated  # noqa: E731
            _, by_cpu = rate(answers(policy, value, prompts, block), generated)
            rates[name] += [by_cpu] if round else []
    base = next(iter(rates.values()))
    for name, found in rates.items():
        ratio = statistics.median(one / other for one, other in zip(found, base, strict=True))
        print(f"{name:44}{statistics.median(found):9.0f} tokens/CPU-s {ratio:8.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=int, default=64, help="tokens of a block")
    arguments = parser.parse_args()
    engine = Engine(
        max_model_len=256,
        max_num_seqs=arguments.sequences,
        kv_cache_gib=0.25,
        dtype="float32",
        enforce_eager=True,
        threads=1,
    )
    model = model_path("sandbox:ref")
    tokenizer = load_tokenizer(model)
    prompts = [prompt_tokens(tokenizer, row["problem"]) for row in benchmark_rows(arguments.sequences)]
    with tempfile.TemporaryDirectory() as folder:
        from vgs_ray.value.model import ValueModel
        from vgs_ray.value.policy_value import PolicyValueModel

        one, separate = Path(folder) / "one", Path(folder) / "value"
        PolicyValueModel.from_policy(model).save_pretrained(one)
        ValueModel.from_backbone(model).save_pretrained(separate)
        both = build_engines(str(one), OWN_HEAD, engine, engine)
        two = build_engines(model, str(separate), engine, engine)
        fast = build_policy(model, engine, logprobs=False)
        ways = {
            "policy": (two.policy, None),
            "policy without log-probabilities": (fast, None),
            "policy and value, one engine": both,
            "policy and value, two engines": two,
        }
        measure(ways, prompts, arguments.block, arguments.rounds)
        for name, value in (("one engine", both.value), ("two engines", two.value)):
            print(f"{name}: {value.usage.scored} tokens scored")
        fast.close()
        two.close()
        both.close()


if __name__ == "__main__":
    main()
