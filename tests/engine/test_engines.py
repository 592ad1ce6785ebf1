"""vLLM engines: agreement with transformers, reproducible sampling, caching, cancellation and failures."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import EOS, TINY_ENGINE, some_tokens

from vgs_ray.config import Sampling
from vgs_ray.engines.interface import EngineDied, EngineFailed, SamplingWithLogprobs, UnknownToken
from vgs_ray.engines.loop import EngineLoop

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=24)


async def test_greedy_tokens_are_those_of_transformers(policy: Any, policy_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy_folder, dtype=torch.float32)
    for seed in range(4):
        prefix = some_tokens(seed, 20)
        wanted = model.generate(torch.tensor([prefix]), max_new_tokens=24, do_sample=False)[0, 20:].tolist()
        got = await policy.extend(prefix, GREEDY, seed=0)
        assert list(got.tokens) == wanted
        logits = model(torch.tensor([[*prefix, *got.tokens]])).logits[0, 19:-1].log_softmax(-1)
        mean = logits.gather(1, torch.tensor(got.tokens)[:, None]).mean().item()
        assert got.mean_logprob == pytest.approx(mean, abs=1e-4)


async def test_log_probabilities_are_those_of_the_model_before_it_is_changed_for_sampling(
    policy: Any, policy_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy_folder, dtype=torch.float32)
    prefix = some_tokens(3, 20)
    changed = Sampling(temperature=0.5, top_p=0.9, top_k=20, repetition_penalty=1.2, max_tokens=24)
    plain = await policy.extend(prefix, changed, 7)
    got = await policy.extend(prefix, SamplingWithLogprobs(**vars(changed)), 7)
    assert (got.tokens, plain.logprobs) == (plain.tokens, None)
    logits = model(torch.tensor([[*prefix, *got.tokens]])).logits[0, 19:-1].log_softmax(-1)
    wanted = logits.gather(1, torch.tensor(got.tokens)[:, None])[:, 0].tolist()
    assert got.logprobs == pytest.approx(wanted, abs=1e-4)


async def test_a_seed_gives_the_same_tokens_alone_and_in_a_batch(policy: Any) -> None:
    prefix = some_tokens(11, 30)
    alone = [await policy.extend(prefix, WARM, seed) for seed in range(3)]
    crowd = await asyncio.gather(*(policy.extend(prefix, WARM, seed) for seed in range(24)))
    assert crowd[:3] == alone
    assert len({completion.tokens for completion in crowd}) == 24


async def test_more_prompts_than_fit_into_one_step(policy: Any) -> None:
    """With chunked prefill, a seeded engine on CPU would fail here."""
    crowd = await asyncio.gather(*(policy.extend(some_tokens(seed, 200), WARM, seed) for seed in range(60)))
    assert all(completion.tokens for completion in crowd)


async def test_blocks_continue_to_the_same_text(policy: Any) -> None:
    prefix = some_tokens(5, 40)
    whole = await policy.extend(prefix, GREEDY, seed=0)
    tokens = prefix
    for _ in range(3):
        block = await policy.extend(tokens, Sampling(temperature=0.0, top_p=1.0, max_tokens=8), seed=0)
        assert (len(block.tokens), block.finish_reason, block.finished) == (8, "length", False)
        tokens += block.tokens
    assert tokens == prefix + whole.tokens


async def test_only_the_end_token_finishes_an_answer(policy: Any) -> None:
    hot = Sampling(temperature=2.0, top_p=1.0, max_tokens=100)
    answers = await asyncio.gather(*(policy.extend(some_tokens(seed, 10), hot, seed) for seed in range(24)))
    assert any(answer.finished for answer in answers)
    for answer in answers:
        assert answer.finished == (answer.tokens[-1] == EOS) == (answer.finish_reason == "stop")
        assert EOS not in answer.tokens[:-1]


async def test_a_stop_token_ends_the_block_and_is_kept(policy: Any) -> None:
    prefix = some_tokens(5, 40)
    whole = (await policy.extend(prefix, GREEDY, seed=0)).tokens
    stop = Sampling(temperature=0.0, top_p=1.0, max_tokens=24, stop_token_ids=(whole[4],))
    block = await policy.extend(prefix, stop, seed=0)
    assert block.tokens == whole[: whole.index(whole[4]) + 1]
    assert (block.finish_reason, block.finished) == ("stop", False)


@pytest.mark.parametrize("more", [{"top_k": 1}, {"min_p": 1.0}, {"top_k": 1, "min_p": 0.5, "top_p": 0.1}])
async def test_sampling_from_the_likeliest_token_alone_is_greedy(policy: Any, more: dict[str, Any]) -> None:
    for seed in range(3):
        prefix = some_tokens(seed, 20)
        wanted = await policy.extend(prefix, GREEDY, seed)
        assert (await policy.extend(prefix, replace(WARM, **{"top_p": 1.0, **more}), seed)).tokens == wanted.tokens


async def test_top_k_limits_the_tokens_and_repetition_is_penalised(policy: Any) -> None:
    prefix, first = some_tokens(3, 20), replace(WARM, top_p=1.0, temperature=2.0, max_tokens=1)

    async def drawn(**more: Any) -> set[int]:
        made = await asyncio.gather(*(policy.extend(prefix, replace(first, **more), seed) for seed in range(64)))
        return {each.tokens[0] for each in made}

    few, unlimited = await drawn(top_k=3), await drawn()
    assert 1 < len(few) <= 3 < len(unlimited)
    assert await drawn(top_k=0, min_p=0.0, repetition_penalty=1.0) == unlimited
    free = await policy.extend(prefix, replace(GREEDY, repetition_penalty=100.0), 0)
    assert not set(free.tokens) & set(prefix)
    assert len(set(free.tokens)) == len(free.tokens)


@pytest.mark.parametrize("wrong", [-1, 120, 127, 128, 256, 2**31, 2**63, 10**400, 1.5, None, "a"])
async def test_an_unknown_token_is_refused_without_an_effect_on_other_calls(
    policy: Any, value: Any, wrong: Any
) -> None:
    prefix = some_tokens(3, 20)
    running = asyncio.gather(policy.extend(prefix, WARM, 0), value.score(prefix))
    for call in (policy.extend((5, wrong), WARM, 0), value.score((5, wrong)), value.score_each((5, wrong))):
        with pytest.raises(UnknownToken, match=r"token 1 has the id .*; ids are 0 to 119"):
            await call
    made, read = await running
    assert (len(made.tokens) > 0, 0 <= read.value <= 1) == (True, True)


async def test_limits_of_length(policy: Any, value: Any) -> None:
    longest = TINY_ENGINE.max_model_len
    block = await policy.extend(some_tokens(1, longest - 5), GREEDY, seed=0)
    assert (len(block.tokens), block.finish_reason) == (5, "length")
    for prefix in ((), some_tokens(1, longest)):
        with pytest.raises(ValueError, match=rf"prefix has {len(prefix)} tokens.*max_model_len"):
            await policy.extend(prefix, GREEDY, seed=0)
    assert 0 <= (await value.score(some_tokens(1, longest))).value <= 1
    for tokens in ((), some_tokens(1, longest + 1)):
        with pytest.raises(ValueError, match=rf"sequence has {len(tokens)} tokens.*max_model_len"):
            await value.score(tokens)


async def test_usage_counts_forwarded_and_cached_tokens(policy: Any) -> None:
    usage, prefix = policy.usage, some_tokens(77, 100)
    before = (usage.generated, usage.prefilled, usage.cached)
    first = await policy.extend(prefix, GREEDY, seed=0)
    assert (usage.generated - before[0], usage.prefilled - before[1], usage.cached - before[2]) == (24, 100, 0)
    await policy.extend(prefix + first.tokens, GREEDY, seed=0)
    assert usage.cached - before[2] == 96  # whole blocks of 32 out of 123 known tokens
    assert usage.prefilled - before[1] == 100 + 124 - 96


async def test_value_is_the_model_with_and_without_cached_prefix(value: Any, value_folder: Path) -> None:
    from vgs_ray.value.model import ValueModel

    model = ValueModel.from_pretrained(value_folder)
    tokens = some_tokens(3, 150)
    wanted = model.success_probs(torch.tensor([tokens]))[0]
    cached, scored = value.usage.cached, value.usage.scored
    for length in (40, 80, 150, 150):
        got = await value.score(tokens[:length])
        assert got.value == pytest.approx(wanted[length - 1].item(), abs=1e-4)
        assert got.value == got.probs[1]
        assert sum(got.probs) == pytest.approx(1)
    assert value.usage.cached - cached == 32 + 64 + 128
    assert value.usage.scored - scored == 40 + 48 + 86 + 22


async def test_values_after_each_token_are_those_of_the_prefixes(value: Any) -> None:
    """In one forward pass, in a batch with scores of last tokens, with and without cached prefixes."""
    long, short = some_tokens(31, 200), some_tokens(32, 3)
    scored = value.usage.scored
    each, last, few = await asyncio.gather(value.score_each(long), value.score(long), value.score_each(short))
    assert (len(each), len(few)) == (200, 3)
    assert each[-1].value == pytest.approx(last.value, abs=1e-5)
    assert value.usage.scored - scored == 200 + 3 + last.scored
    for at in (0, 1, 31, 32, 150):
        assert each[at].value == pytest.approx((await value.score(long[: at + 1])).value, abs=1e-5)
        assert (each[at].scored, each[at].value) == (1, each[at].probs[1])
    assert [read.value for read in await value.score_each(long)] == pytest.approx(
        [read.value for read in each], abs=1e-5
    )
    with pytest.raises(ValueError, match="1 to 256"):
        await value.score_each(())


async def test_many_scores_at_once_are_those_of_single_calls(value: Any) -> None:
    prefixes = [some_tokens(seed, 20 + seed) for seed in range(80)]
    together = await asyncio.gather(*map(value.score, prefixes))
    for prefix, score in zip(prefixes[::16], together[::16], strict=True):
        assert (await value.score(prefix)).value == pytest.approx(score.value, abs=1e-5)


async def test_cancelling_frees_the_engine(policy: Any) -> None:
    long = Sampling(temperature=1.0, top_p=1.0, max_tokens=240)
    task = asyncio.create_task(policy.extend(some_tokens(9, 10), long, seed=1))
    while policy.kv_usage == 0:
        await asyncio.sleep(0.001)
    assert policy.loop.unfinished == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while policy.loop.engine.has_unfinished_requests() or policy.loop.unfinished or policy.kv_usage:
            await asyncio.sleep(0.001)
    assert (await policy.extend(some_tokens(9, 10), GREEDY, seed=1)).tokens


async def test_several_asyncio_loops_share_an_engine(policy: Any) -> None:
    prefix = some_tokens(21, 25)

    def in_another_loop(seed: int) -> Any:
        return asyncio.run(policy.extend(prefix, WARM, seed))

    apart = await asyncio.gather(*(asyncio.to_thread(in_another_loop, seed) for seed in range(4)))
    assert apart == list(await asyncio.gather(*(policy.extend(prefix, WARM, seed) for seed in range(4))))


class Echo:
    """An engine that returns the prompt, keeps negative prompts running, refuses zeros and fails on 13."""

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}
        self.aborted: list[str] = []

    def add_request(self, request_id: str, prompt: Any, params: Any) -> None:
        if 0 in prompt["prompt_token_ids"]:
            raise ValueError("zero")
        self.held[request_id] = prompt["prompt_token_ids"]

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            del self.held[request_id]

    def step(self) -> list[Any]:
        if any(13 in tokens for tokens in self.held.values()):
            raise RuntimeError("broken")
        ready = [request_id for request_id, tokens in self.held.items() if tokens[0] > 0]
        return [SimpleNamespace(request_id=ready_id, finished=True, got=self.held.pop(ready_id)) for ready_id in ready]


def echo_loop(released: list[Any]) -> EngineLoop[int]:
    return EngineLoop(Echo, released.append, lambda output: output.got[0])


async def test_a_refused_sequence_has_no_effect_on_others() -> None:
    loop = echo_loop([])
    results = await asyncio.gather(*(loop.submit((token,), None) for token in (1, 0, 2)), return_exceptions=True)
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], ValueError)
    loop.close()


async def test_a_dead_engine_fails_pending_and_later_calls() -> None:
    released: list[Any] = []
    loop = echo_loop(released)
    waiting = asyncio.create_task(loop.submit((-1,), None))
    await asyncio.sleep(0)
    with pytest.raises(EngineFailed, match="broken"):
        await loop.submit((13,), None)
    with pytest.raises(EngineFailed, match="broken"):  # the engine held it too, so it may be the cause
        await waiting
    with pytest.raises(EngineDied, match="start another engine") as later:
        await loop.submit((1,), None)
    assert not isinstance(later.value, EngineFailed)
    assert loop.failed.wait(5)
    loop.close()
    assert len(released) == 1


async def test_closing_fails_pending_calls() -> None:
    loop = echo_loop([])
    waiting = asyncio.create_task(loop.submit((-1,), None))
    await asyncio.sleep(0)
    loop.close()
    with pytest.raises(EngineDied, match="closed") as closed:
        await waiting
    assert not isinstance(closed.value, EngineFailed)
    assert not loop.failed.is_set()


def test_a_failing_start_is_raised_by_the_constructor() -> None:
    def build() -> Any:
        raise FileNotFoundError("no such model")

    with pytest.raises(FileNotFoundError, match="no such model"):
        EngineLoop(build, lambda engine: None, lambda output: None)
