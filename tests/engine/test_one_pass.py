"""The engine that is policy and value in one: the samples of the plain policy, and the values of transformers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from headed import WARM, OnePass, add_head, add_layers, serve
from tiny import TINY_ENGINE, some_tokens

from vgs_ray.config import Beam, Engine, Sampling
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines import build_engines, build_policy
from vgs_ray.engines.interface import Completion, Policy, SamplingWithLogprobs, Score, UnknownToken, Usage, Value
from vgs_ray.engines.one_pass import VllmPolicyValue
from vgs_ray.models import OWN_HEAD, model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.explore import beam
from vgs_ray.search.tree import Tree

SANDBOX = model_path("sandbox:ref")
STEP_ENDS = tuple(range(178, 188))  # "\n1) " and those that follow


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnePass]:
    folder = tmp_path_factory.mktemp("linear")
    yield from serve(folder, add_head(SANDBOX, folder, std=0.1))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnePass]:
    folder = tmp_path_factory.mktemp("layered")
    yield from serve(folder, add_layers(SANDBOX, folder, layers=2))


@pytest.fixture(params=["linear"])
def one(request: pytest.FixtureRequest) -> OnePass:
    found: OnePass = request.getfixturevalue(request.param)
    return found


BOTH = pytest.mark.parametrize("one", ["linear", "layered"], indirect=True)
"""The test runs with both kinds of heads; others run with a linear one."""


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    engine = build_policy(SANDBOX, TINY_ENGINE)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def prompts() -> list[Tokens]:
    tokenizer = load_tokenizer(SANDBOX)
    return [prompt_tokens(tokenizer, row["problem"]) for row in benchmark_rows(12)]


@pytest.mark.parametrize(
    ("one", "sampling"),
    [
        ("linear", replace(WARM, max_tokens=120)),
        ("linear", replace(WARM, stop_token_ids=STEP_ENDS)),
        ("linear", replace(WARM, max_tokens=7, stop_token_ids=STEP_ENDS)),
        ("linear", replace(WARM, max_tokens=1)),
        ("linear", replace(WARM, temperature=0.0)),
        ("linear", Sampling(temperature=0.6, top_p=0.95, max_tokens=40, top_k=8, min_p=0.02, repetition_penalty=1.1)),
        ("layered", replace(WARM, max_tokens=120)),
        ("layered", replace(WARM, max_tokens=1)),
    ],
    indirect=["one"],
)
async def test_samples_are_those_of_the_plain_policy_and_values_those_of_transformers(
    one: OnePass, plain: Any, prompts: list[Tokens], sampling: Sampling
) -> None:
    sampling = SamplingWithLogprobs(**vars(sampling))
    calls = [(prompt, seed) for prompt in prompts for seed in range(2)]
    before = one.engine.usage.generated, plain.usage.generated
    expected = await asyncio.gather(*(plain.extend(prefix, sampling, seed) for prefix, seed in calls))
    got = await asyncio.gather(*(one.engine.extend(prefix, sampling, seed) for prefix, seed in calls))
    for (prefix, _), ours, theirs in zip(calls, got, expected, strict=True):
        assert ours[:3] == theirs[:3]  # tokens, finished, finish_reason
        assert ours.mean_logprob == pytest.approx(theirs.mean_logprob, abs=1e-4)
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.score.value == pytest.approx(one.values(prefix + ours.tokens)[-1], abs=1e-4)
        assert ours.score.scored == 0
    assert one.engine.usage.generated - before[0] == plain.usage.generated - before[1]
    assert one.engine.usage.scored == 0
    values = torch.tensor([completion.score.value for completion in got])
    assert values.std() > 0.01


@BOTH
async def test_blocks_end_in_each_way(one: OnePass, prompts: list[Tokens]) -> None:
    sampling = replace(WARM, stop_token_ids=STEP_ENDS, max_tokens=12)
    ends: Counter[tuple[str, bool]] = Counter()

    async def answer(tokens: Tokens) -> None:
        finished = False
        while not finished and len(tokens) < 200:
            block = await one.engine.extend(tokens, sampling, seed=len(tokens))
            tokens, finished = tokens + block.tokens, block.finished
            ends[block.finish_reason, finished] += 1
            assert block.score.value == pytest.approx(one.values(tokens)[-1], abs=1e-4)  # with cached prefixes
            assert (block.finish_reason == "stop") == (block.tokens[-1] in (1, *STEP_ENDS))

    await asyncio.gather(*map(answer, prompts))
    assert set(ends) == {("stop", True), ("stop", False), ("length", False)}
    assert one.engine.usage.scored == 0


class ByTransformers(Value):
    """Scores each prefix from scratch."""

    def __init__(self, one: OnePass) -> None:
        self.usage, self.one = Usage(), one

    async def score(self, tokens: Tokens) -> Score:
        return Score(self.one.values(tokens)[-1])


class OneScoreForEqualTokens(Policy):
    """Equal blocks get exactly equal scores, so that rounding noise does not decide between them."""

    def __init__(self, one: OnePass) -> None:
        self.usage, self.one = one.engine.usage, one
        self.scores: dict[Tokens, Score] = {}

    async def extend(self, prefix: Tokens, sampling: Sampling, seed: int) -> Completion:
        completion: Completion = await self.one.engine.extend(prefix, sampling, seed)
        assert completion.score is not None
        return completion._replace(score=self.scores.setdefault(prefix + completion.tokens, completion.score))


@pytest.mark.parametrize(
    "shape", [Beam(keep=2, branch=3, block=16), Beam(keep=1, branch=3, block=64, groups=2)], ids=["blocks", "steps"]
)
async def test_a_beam_search_grows_the_tree_of_a_separate_value_model(
    one: OnePass, plain: Any, prompts: list[Tokens], shape: Beam
) -> None:
    sampling = Sampling(1.0, 1.0, 150, STEP_ENDS if shape.block == 64 else ())
    for seed, prompt in enumerate(prompts[:3]):
        ours = await beam(OneScoreForEqualTokens(one), one.engine, prompt, beam=shape, sampling=sampling, seed=seed)
        theirs = await beam(plain, ByTransformers(one), prompt, beam=shape, sampling=sampling, seed=seed)
        for mine, other in zip(_by_place(ours), _by_place(theirs), strict=True):
            assert mine[:-1] == other[:-1]
            assert mine[-1].value == (
                other[-1].value if mine[-1].parent is None else pytest.approx(other[-1].value, abs=1e-4)
            )
        assert ours.usage().scored == 0
    assert one.engine.usage.scored == 0


def _by_place(tree: Tree) -> list[tuple[Any, ...]]:
    """Place, place of the parent, tokens, state and node of each node; ids depend on the order of arrival."""
    return sorted(
        (node.place, tree.nodes[node.parent or 0].place, node.tokens, node.state, node) for node in tree.nodes
    )


@BOTH
async def test_given_tokens_get_their_values(one: OnePass) -> None:
    """With and without a cached prefix, at each token, and with the slot, end tokens and stop tokens among them."""
    draw = random.Random(5)
    tokens = tuple(draw.randrange(236) for _ in range(200))
    assert {0, 1} <= set(tokens)
    expected, scored = one.values(tokens), one.engine.usage.scored
    for length, forwarded in ((40, 40), (80, 48), (200, 136), (200, 8)):
        score = await one.engine.score(tokens[:length])
        assert score.value == pytest.approx(expected[length - 1], abs=1e-4)
        assert score.scored == forwarded
    assert one.engine.usage.scored - scored == 40 + 48 + 136 + 8
    each = await one.engine.score_each(tokens)
    assert [score.value for score in each] == pytest.approx(expected, abs=1e-4)
    assert one.engine.usage.scored - scored == 232 + sum(score.scored for score in each)
    assert sum(score.scored for score in each) < 2 * len(tokens)
    block = await one.engine.extend(tokens, replace(WARM, stop_token_ids=(0,)), seed=1)
    assert block.score.value == pytest.approx(one.values(tokens + block.tokens)[-1], abs=1e-4)
    one.engine.usage.scored = scored


async def test_cancelled_and_refused_calls_have_no_effect_on_others(one: OnePass, prompts: list[Tokens]) -> None:
    sampling = replace(WARM, max_tokens=100)
    expected = await asyncio.gather(*(one.engine.extend(prompt, sampling, 7) for prompt in prompts))
    tasks = [asyncio.create_task(one.engine.extend(prompt, sampling, 7)) for prompt in prompts]
    dropped = [asyncio.create_task(one.engine.extend(prompt, sampling, 8)) for prompt in prompts]
    dropped += [asyncio.create_task(one.engine.score_each(some_tokens(1, 200)))]
    while one.engine.kv_usage == 0:
        await asyncio.sleep(0.001)
    for task in dropped:
        task.cancel()
    for call in (
        one.engine.extend((5, 236), WARM, 0),
        one.engine.extend((5,), replace(WARM, stop_token_ids=(236,)), 0),
        one.engine.score((5, -1)),
        one.engine.score_each((5, 236)),
    ):
        with pytest.raises(UnknownToken, match="ids are 0 to 235"):
            await call
    got = await asyncio.gather(*tasks)
    assert [(each.tokens, each.score.value) for each in got] == [
        (each.tokens, pytest.approx(each.score.value, abs=1e-5)) for each in expected
    ]
    async with asyncio.timeout(10):
        while one.engine.loop.engine.has_unfinished_requests() or one.engine.loop.unfinished or one.engine.kv_usage:
            await asyncio.sleep(0.001)


class Chunked(VllmPolicyValue):
    """Prefills in chunks, as engines on a GPU do."""

    def _engine_args(self, model: str, engine: Engine) -> dict[str, Any]:
        return {**super()._engine_args(model, engine), "enable_chunked_prefill": True, "max_num_batched_tokens": 64}


@BOTH
def test_chunked_prefill(one: OnePass, prompts: list[Tokens]) -> None:
    engine = Chunked(one.folder, TINY_ENGINE)
    # On CPU, vLLM can sample without a seed only.
    greedy = replace(WARM, temperature=0.0, max_tokens=20, stop_token_ids=STEP_ENDS)
    prefixes = [
        prompt + some_tokens(length, length) for length, prompt in zip((0, 9, 10, 11, 150), prompts, strict=False)
    ]

    async def blocks() -> list[Any]:
        return list(await asyncio.gather(*(engine.extend(prefix, greedy, 0) for prefix in prefixes)))

    try:
        for prefix, block in zip(prefixes, asyncio.run(blocks()), strict=True):
            assert block.score.value == pytest.approx(one.values(prefix + block.tokens)[-1], abs=1e-4)
    finally:
        engine.close()


def test_a_policy_without_a_head_starts_no_engine(policy_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no value head \(value_head/config.json is missing\)"):
        build_engines(str(policy_folder), OWN_HEAD, TINY_ENGINE, TINY_ENGINE)
